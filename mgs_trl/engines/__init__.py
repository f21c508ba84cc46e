"""Engines: how DDP, DeepSpeed ZeRO and FSDP2 keep gradients, behind one interface."""

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mgs_trl.engines.base import Engine, Piece
from mgs_trl.engines.domain_gradients import DomainGradients
from mgs_trl.engines.local import LocalEngine

__all__ = ["DomainGradients", "Engine", "LocalEngine", "Piece", "make_engine", "trainable_parameters"]


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
    names = trainable_parameters(unwrapped)
    if model is unwrapped or isinstance(model, DistributedDataParallel):
        return LocalEngine(model, names)
    raise ValueError(
        f"the model is wrapped as {type(model).__name__}, but surgery supports a single process and DDP so far; use "
        "one of these, or surgery='none'."
    )
