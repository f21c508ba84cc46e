"""Domain gradients of one window: kept shard by shard, decided on together, written back in place."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mgs_trl.engines.base import Engine
from mgs_trl.surgery import ConflictReport, Module, Surgeon
from mgs_trl.surgery.gramian import add_gramians, combine_all


class DomainGradients:
    """Collects the gradient of each domain from an engine and replaces the last one by the combination.

    Only T - 1 domain gradients are copied: the last domain's stays where the engine has it and is overwritten there.

    Args:
        engine: where gradients live.
        modules: partition of the parameters that the engine's pieces name.
        domains: how many domains a window has (T).
        dtype: of the copies.
        offload: keep the copies in host memory.
    """

    def __init__(
        self,
        engine: Engine,
        modules: Sequence[Module],
        domains: int,
        dtype: torch.dtype = torch.float32,
        offload: bool = False,
    ):
        self.engine = engine
        self.modules = modules
        self.domains = domains
        self.dtype = dtype
        self.offload = offload
        of_parameter = {name: m for m, module in enumerate(modules) for name in module.parameters}
        self._module_of_piece = [of_parameter[piece.name] for piece in engine.pieces()]
        self._kept: dict[int, list[Tensor | None]] = {}
        self._buffers: list[Tensor] = []
        self._stopwatch = _Stopwatch(engine.device)

    def keep(self, domain: int) -> None:
        """Copy the gradient of the domain that has just been reduced, and clear the engine for the next one."""
        with self._stopwatch.span():
            gradients = self.engine.gradients()
            buffer = self._buffer(len(self._kept), gradients)
            kept: list[Tensor | None] = []
            start = 0
            for piece, gradient in zip(self.engine.pieces(), gradients, strict=True):
                row = buffer[start : start + piece.numel]
                kept.append(None if gradient is None else row.copy_(gradient))
                start += piece.numel
            self._kept[domain] = kept
            self.engine.clear()

    def resolve(self, last: int, surgeon: Surgeon, step: int) -> ConflictReport:
        """Decide on all domains and write the combined gradient into the engine. Call after the window's last domain.

        A domain that had no rows in the window counts as a zero gradient. Communication: one all_reduce of the
        Gramians, and none where every rank holds whole gradients. All ranks of the group must call it.

        Args:
            last: the domain whose gradient the engine holds now.
            surgeon: decides the weights.
            step: optimizer step.
        """
        with self._stopwatch.span():
            live = list(self.engine.gradients())
            nothing: list[Tensor | None] = [None] * len(live)
            rows = [live if d == last else self._kept.get(d, nothing) for d in range(self.domains)]
            report = surgeon.decide(self._gramian(rows), step)
            self._write(rows, live, report.weights)
            self.engine.commit()
            self._kept = {}
        return report

    def seconds(self) -> float:
        """Time that keeping and resolving took since the last call; see `_Stopwatch.read`."""
        return self._stopwatch.read()

    def memory(self) -> tuple[str, int]:
        """Where this rank's copies are (`cpu` or another type of device), and their bytes."""
        place = self._buffers[0].device.type if self._buffers else "cpu"
        return place, sum(buffer.nbytes for buffer in self._buffers)

    def _buffer(self, index: int, gradients: Sequence[Tensor | None]) -> Tensor:
        if index == len(self._buffers):
            total = sum(piece.numel for piece in self.engine.pieces())
            device = next((g.device for g in gradients if g is not None), torch.device("cpu"))
            pinned = self.offload and device.type == "cuda"
            where = torch.device("cpu") if self.offload else device
            self._buffers.append(torch.zeros(total, dtype=self.dtype, device=where, pin_memory=pinned))
        return self._buffers[index]

    def _gramian(self, rows: list[list[Tensor | None]]) -> Tensor:
        """`[M, T, T]` float64 on the host, summed over the shards."""
        device = self.engine.device
        gramian = torch.zeros(len(self.modules), self.domains, self.domains, dtype=torch.float64, device=device)
        add_gramians(gramian, list(zip(*rows, strict=True)), self._module_of_piece)
        self.engine.agree(gramian)
        return gramian.cpu()

    def _write(self, rows: list[list[Tensor | None]], live: list[Tensor | None], weights: Tensor) -> None:
        per_module = weights.tolist()
        out, vectors, numbers = [], [], []
        for index, (target, vector) in enumerate(zip(live, zip(*rows, strict=True), strict=True)):
            if all(gradient is None for gradient in vector):
                continue  # no domain reached this parameter: the optimizer must not see a gradient at all
            out.append(self.engine.materialize(index) if target is None else target)
            vectors.append(vector)
            numbers.append(per_module[self._module_of_piece[index]])
        combine_all(out, vectors, numbers)


class _Stopwatch:
    """Time of spans of work on a device. CUDA's is taken from events in the stream, so that nothing waits for it."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._spans: list[tuple[Any, Any]] = []

    @contextmanager
    def span(self) -> Iterator[None]:
        start = self._now()
        yield
        self._spans.append((start, self._now()))

    def read(self) -> float:
        """Seconds of all spans since the last call. A span whose kernels still run is left for the next call."""
        if not self._cuda:
            ended, self._spans = self._spans, []
            return sum(end - start for start, end in ended)
        ended = [span for span in self._spans if span[1].query()]
        self._spans = self._spans[len(ended) :]  # a stream ends its spans in order
        return sum(start.elapsed_time(end) for start, end in ended) / 1000

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
