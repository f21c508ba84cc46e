"""What the DeepSpeed engines share: when the gradient is reduced, and that surgery comes between that and the step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils.deepspeed import DeepSpeedEngineWrapper
from torch import Tensor

from mgs_trl.engines.base import Engine, Piece


class DomainDeepSpeedEngineWrapper(DeepSpeedEngineWrapper):
    """Accelerate's wrapper fuses backward and step at a boundary; here every domain's end is a boundary, only the
    window's end steps, and surgery comes in between.

    Attributes:
        reduce: whether the coming backward reduces. Set by `ZeroEngine.backward`.
    """

    reduce = True

    def __init__(self, engine: Any, owner: "ZeroEngine"):
        super().__init__(engine)
        self._owner = owner

    def backward(self, loss: Tensor, sync_gradients: bool = True, **kwargs: Any) -> None:
        self.engine.set_gradient_accumulation_boundary(is_boundary=self.reduce or sync_gradients)
        self.engine.backward(loss, **kwargs)
        if self.reduce or sync_gradients:
            self._owner.after_reduction()
        if sync_gradients:
            if self._owner.before_step is not None:
                self._owner.before_step()
            self.engine.step()
            self._owner.after_step()


class ZeroEngine(Engine):
    """Gradients in a DeepSpeed optimizer. Subclasses know where each optimizer class keeps them.

    Args:
        accelerator: gets the wrapper above in place of its own.
        engine: the `DeepSpeedEngine`.
    """

    sharded = True

    def __init__(self, accelerator: Any, engine: Any):
        self.device = accelerator.device
        self.optimizer = engine.optimizer
        self._wrapper = DomainDeepSpeedEngineWrapper(engine, self)
        accelerator.deepspeed_engine_wrapped = self._wrapper
        self._pieces: list[Piece] = []

    def pieces(self) -> Sequence[Piece]:
        return self._pieces

    @contextmanager
    def backward(self, reduce: bool, step: bool) -> Iterator[None]:
        self._wrapper.reduce = reduce
        yield

    def materialize(self, index: int) -> Tensor:
        raise AssertionError("DeepSpeed holds a gradient, if only of zeros, for every trainable parameter")

    def after_reduction(self) -> None:
        """Called when what has accumulated is reduced, before anything reads or clips it."""

    def after_step(self) -> None:
        """Called when the optimizer has stepped."""


def check_piece(name: str, gradient: Tensor, numel: int) -> Tensor:
    """`gradient` as one dimension of `numel` elements, of the same memory.

    Raises:
        RuntimeError: DeepSpeed lays its partitions out otherwise than verified.
    """
    if gradient.numel() != numel:
        raise RuntimeError(f"DeepSpeed holds {gradient.numel()} gradient elements of {name} here, not {numel}.")
    return gradient.detach().view(-1)


def is_finite(tensors: Sequence[Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
