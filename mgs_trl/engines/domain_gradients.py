"""Domain gradients of one window: kept shard by shard, decided on together, written back in place."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mgs_trl.engines.base import Engine
from mgs_trl.surgery import ConflictReport, Module, Surgeon, add_gramian, combine


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

    def keep(self, domain: int) -> None:
        """Copy the gradient of the domain that has just been reduced, and clear the engine for the next one."""
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
        live = list(self.engine.gradients())
        nothing: list[Tensor | None] = [None] * len(live)
        rows = [live if d == last else self._kept.get(d, nothing) for d in range(self.domains)]
        report = surgeon.decide(self._gramian(rows), step)
        self._write(rows, live, report.weights)
        self.engine.commit()
        self._kept = {}
        return report

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
        for index, module in enumerate(self._module_of_piece):
            present = [d for d in range(self.domains) if rows[d][index] is not None]
            gradients = [g for row in rows if (g := row[index]) is not None]
            if not present or gradients[0].numel() == 0:
                continue
            if len(present) == self.domains:
                add_gramian(gramian[module], gradients)
            else:
                part = torch.zeros(len(present), len(present), dtype=torch.float64, device=device)
                add_gramian(part, gradients)
                where = torch.tensor(present, device=device)
                gramian[module, where[:, None], where[None, :]] += part
        self.engine.agree(gramian)
        return gramian.cpu()

    def _write(self, rows: list[list[Tensor | None]], live: list[Tensor | None], weights: Tensor) -> None:
        per_module = weights.tolist()
        for index, module in enumerate(self._module_of_piece):
            present = [(g, w) for row, w in zip(rows, per_module[module], strict=True) if (g := row[index]) is not None]
            if not present:
                continue  # no domain reached this parameter: the optimizer must not see a gradient at all
            target = live[index]
            if target is None:
                target = self.engine.materialize(index)
            combine(target, [g for g, _ in present], [w for _, w in present])
