"""The few questions that surgery asks an engine: where its reduced gradients live, and when it may reduce."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class Piece:
    """A slice of a flattened parameter's gradient that this rank holds.

    Attributes:
        name: the parameter's name in the unwrapped model.
        numel: elements of the slice; the parameter's other elements are other ranks' pieces.
    """

    name: str
    numel: int


class Engine(ABC):
    """Reduced gradients of one model under one engine, as local one-dimensional pieces.

    One window goes: for each domain in order, `backward(reduce=False)` around every forward and backward but the
    domain's last, `backward(reduce=True)` around that one; then `gradients()` are the domain's, and `clear()` makes
    room for the next. After the last domain its gradients are overwritten in place with the combined ones and
    `commit()` hands them back to the engine, which clips and steps as usual.
    """

    #: Called when the window's last gradient is reduced, before the engine clips and steps.
    before_step: Callable[[], None] | None = None
    #: Over which ranks the pieces are disjoint shards; None where every rank holds whole gradients.
    shard_group: ProcessGroup | None = None
    #: Whether pieces are shards at all (a group of None with `sharded` is the default group).
    sharded: bool = False
    #: Where inner products are computed and reduced over ranks; gradients may live on the host.
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def pieces(self) -> Sequence[Piece]:
        """This rank's pieces. Their order is that of `gradients()`; constant over a run."""

    @abstractmethod
    def backward(self, reduce: bool, step: bool) -> AbstractContextManager[None]:
        """Context of one forward and backward.

        Args:
            reduce: whether the accumulated gradient is reduced over ranks at its end.
            step: whether it is the window's last, after which the optimizer steps.
        """

    @abstractmethod
    def gradients(self) -> Sequence[Tensor | None]:
        """One-dimensional views of the reduced gradients, valid until the next backward; None for a piece that no
        backward has reached since `clear()`."""

    @abstractmethod
    def clear(self) -> None:
        """Forget the accumulated gradient, so that the next domain starts from zero."""

    @abstractmethod
    def materialize(self, index: int) -> Tensor:
        """A zero gradient for a piece that has none, to be written into."""

    def commit(self) -> None:  # noqa: B027
        """Called once after the combined gradient is written in place. Most engines read it where it was written."""

    def agree(self, gramian: Tensor) -> None:
        """Make `gramian`, computed from this rank's pieces, that of the whole gradients, the same on every rank."""
        if self.sharded:
            dist.all_reduce(gramian, group=self.shard_group)
