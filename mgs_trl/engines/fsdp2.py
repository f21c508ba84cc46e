"""FSDP2: every rank holds a slice of each parameter's gradient, a DTensor."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from mgs_trl.engines.base import Engine, Piece


class FSDP2Engine(Engine):
    """Local slices of `parameter.grad`.

    Gradients accumulate unsharded until a backward that synchronizes; the switch is set before each forward and
    overrules the `no_sync()` of the training loop, which is the same switch. With HSDP the slices are disjoint over the
    sharded dimension of the mesh and repeated over the other.

    Args:
        model: a module to which `fully_shard` was applied.
        names: trainable parameters by name.
        device: where inner products are computed.

    Raises:
        ValueError: a trainable parameter that is not sharded by FSDP2 along one mesh dimension, or an output head whose
            gradient would stay unreduced.
    """

    sharded = True

    def __init__(self, model: FSDPModule, names: dict[str, nn.Parameter], device: torch.device):
        _check_head(model)
        self._model = model
        self.device = device
        self._parameters = list(names.values())
        for name, parameter in names.items():
            if not isinstance(parameter, DTensor) or sum(isinstance(p, Shard) for p in parameter.placements) != 1:
                raise ValueError(
                    f"the parameter {name} is not sharded by FSDP2 along one dimension, but surgery needs each "
                    "trainable parameter to be; use fully_shard alone, without tensor parallelism."
                )
        first = cast(DTensor, self._parameters[0])
        dimension = next(i for i, placement in enumerate(first.placements) if isinstance(placement, Shard))
        self.shard_group = first.device_mesh.get_group(dimension)
        self._pieces = [Piece(name, _local(parameter).numel()) for name, parameter in names.items()]

    def pieces(self) -> Sequence[Piece]:
        return self._pieces

    @contextmanager
    def backward(self, reduce: bool, step: bool) -> Iterator[None]:
        self._model.set_requires_gradient_sync(reduce)
        try:
            yield
        finally:
            self._model.set_requires_gradient_sync(True)
        if step and self.before_step is not None:
            self.before_step()

    def gradients(self) -> Sequence[Tensor | None]:
        return [None if p.grad is None else _local(p.grad).view(-1) for p in self._parameters]

    def clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def materialize(self, index: int) -> Tensor:
        parameter = self._parameters[index]
        parameter.grad = torch.zeros_like(parameter)
        return _local(parameter.grad).view(-1)


def reshard(model: nn.Module) -> None:
    """Make every parameter a DTensor again: a forward that no backward follows, as in an evaluation, leaves those of
    the last modules whole."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _check_head(model: Any) -> None:
    """TRL takes log-probabilities from the head's weight without calling the head. FSDP2 gathers a weight, and reduces
    its gradient, around calls of the modules that it is sharded with; accelerate shards the head with the final norm
    where it finds one. `_get_fsdp_state()._modules` was verified with torch 2.13 (tests/contract)."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    trained = head is not None and any(parameter.requires_grad for parameter in head.parameters())
    if trained and isinstance(head, FSDPModule) and head._get_fsdp_state()._modules == (head,):
        raise ValueError(
            "the output head is trained, but FSDP2 shards it apart from the final norm (with an adapter it does), and "
            "then every rank would train it on its own rows; leave it out of modules_to_save, or use DDP or DeepSpeed."
        )


def _local(value: Any) -> Tensor:
    return cast(DTensor, value).to_local().detach()
