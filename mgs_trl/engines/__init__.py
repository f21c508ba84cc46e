"""Engines: how DDP, DeepSpeed ZeRO and FSDP2 keep gradients, behind one interface."""

from typing import Any, cast

from accelerate.utils import DistributedType, is_compiled_module
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from mgs_trl.engines.base import Engine, Piece
from mgs_trl.engines.domain_gradients import DomainGradients
from mgs_trl.engines.fsdp2 import FSDP2Engine, reshard
from mgs_trl.engines.local import LocalEngine
from mgs_trl.engines.support import check_engine
from mgs_trl.engines.zero_trace import forget_order

__all__ = [
    "DomainGradients",
    "Engine",
    "LocalEngine",
    "Piece",
    "check_engine",
    "forget_order",
    "make_engine",
    "reshard",
    "trainable_parameters",
]


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters of the unwrapped model by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def make_engine(accelerator: Any, model: nn.Module, unwrapped: nn.Module) -> Engine:
    """The engine that a prepared model trains with.

    Args:
        accelerator: the `accelerate.Accelerator` that prepared the model.
        model: as `accelerator.prepare` returned it.
        unwrapped: the model inside.

    Raises:
        ValueError: an engine without support here; the message names it.
    """
    if is_compiled_module(model) and not isinstance(model, FSDPModule):
        model = cast(nn.Module, model._orig_mod)  # what torch.compile's wrapper calls; FSDP2 shards the wrapper itself
    reshard(model)
    names = trainable_parameters(unwrapped)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        from mgs_trl.engines.zero import make_zero_engine

        return make_zero_engine(accelerator, model, names)
    if isinstance(model, FSDPModule):
        return FSDP2Engine(model, names, accelerator.device)
    if model is unwrapped or isinstance(model, DistributedDataParallel):
        return LocalEngine(model, names, accelerator.device)
    raise ValueError(
        f"the model is wrapped as {type(model).__name__}, but surgery supports a single process, DDP, DeepSpeed "
        "ZeRO-1, 2 and 3, and FSDP2; use one of these."
    )
