"""Gradients in `parameter.grad`: a single process, or DDP, which keeps a whole reduced copy on every rank."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mgs_trl.engines.base import Engine, Piece


class LocalEngine(Engine):
    """`parameter.grad` of the trainable parameters.

    Under DDP a domain's backward passes accumulate locally and the last one reduces. DDP consults
    `require_backward_grad_sync` in its forward, so the switch is set before it; the surrounding `no_sync()` of the
    training loop has the same switch and is overruled.

    Args:
        model: the prepared model (wrapped by DDP or not).
        names: trainable parameters by name, from the unwrapped model.
        device: where inner products are computed.
    """

    def __init__(self, model: nn.Module, names: dict[str, nn.Parameter], device: torch.device):
        self.device = device
        self._ddp = model if isinstance(model, DistributedDataParallel) else None
        self._parameters = list(names.values())
        self._pieces = [Piece(name, parameter.numel()) for name, parameter in names.items()]

    def pieces(self) -> Sequence[Piece]:
        return self._pieces

    @contextmanager
    def backward(self, reduce: bool, step: bool) -> Iterator[None]:
        with self._synced(reduce):
            yield
        if step and self.before_step is not None:
            self.before_step()

    @contextmanager
    def _synced(self, reduce: bool) -> Iterator[None]:
        if self._ddp is None:
            yield
            return
        before = self._ddp.require_backward_grad_sync
        self._ddp.require_backward_grad_sync = reduce
        try:
            yield
        finally:
            self._ddp.require_backward_grad_sync = before

    def gradients(self) -> Sequence[Tensor | None]:
        for parameter in self._parameters:
            if parameter.grad is not None and not parameter.grad.is_contiguous():
                parameter.grad = parameter.grad.contiguous()
        return [None if p.grad is None else p.grad.view(-1) for p in self._parameters]

    def clear(self) -> None:
        for parameter in self._parameters:
            if parameter.grad is not None and self._ddp is not None:
                parameter.grad.zero_()  # in place: with gradient_as_bucket_view it is a view of DDP's bucket
            else:
                parameter.grad = None

    def materialize(self, index: int) -> Tensor:
        parameter = self._parameters[index]
        parameter.grad = parameter.new_zeros(parameter.shape)
        return parameter.grad.view(-1)

    def agree(self, gramian: Tensor) -> None:
        # Equal gradients give equal Gramians on equal machines; where kernels differ, rank 0 decides for all.
        if self._ddp is not None:
            dist.broadcast(gramian, src=0)
