"""conflicts.jsonl in one pass, bounded memory: means with errors per pair and module, weights, series, a heat map."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mgs_trl.report.read import json_lines
from mgs_trl.report.statistics import Array, RunningMean, relative_norm
from mgs_trl.report.weights import WeightSums

HEATMAP_COLUMNS = 400
HEATMAP_CELLS = 1_200_000  # of all pairs of all runs of a report: some 3 MB in the file
WHOLE = "whole model"


@dataclass
class Conflicts:
    """What a conflict log says.

    Rows are the modules, then the kinds (`kind_names`), then the whole model; a row of several modules has the sum of
    their Gramians.

    Attributes:
        domains: names, sorted. pairs: `(a, b)` indices into them, `a < b`.
        modules, kinds, layers: of each module; layer -1 is outside of layers.
        steps: of every line used.
        inner, cosine: over steps, `[rows, pairs]`. A step counts for a pair if both domains had a gradient.
        negative: steps with a negative inner product, `[rows, pairs]`.
        series: per step by name (`pair/{a}~{b}/cosine`, `.../norm_ratio`, `.../share`, `weight/{d}`, `removed`);
            NaN where a domain had no gradient.
        heat: mean cosine per column of steps, `[pairs, modules, columns]`; NaN where nothing was measured.
        columns: first and last step of each column.
        weights: what surgery multiplied the domain gradients by.
        removed_mean: mean over steps of what surgery took from the plain sum, by kind and of the whole model.
        notes: lines left out, and why.
    """

    domains: tuple[str, ...]
    modules: tuple[str, ...]
    kinds: tuple[str, ...]
    layers: tuple[int, ...]
    pairs: list[tuple[int, int]]
    inner: RunningMean
    cosine: RunningMean
    negative: Array
    heat: Array
    weights: WeightSums
    steps: list[int] = field(default_factory=list)
    columns: list[tuple[int, int]] = field(default_factory=list)
    series: dict[str, list[float]] = field(default_factory=dict)
    removed_mean: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def kind_names(self) -> list[str]:
        return list(dict.fromkeys(self.kinds))

    @property
    def rows(self) -> list[str]:
        return [*self.modules, *self.kind_names, WHOLE]

    def pair_name(self, pair: int) -> str:
        a, b = self.pairs[pair]
        return f"{self.domains[a]}~{self.domains[b]}"


def read_conflicts(path: Path, runs: int = 1) -> Conflicts | None:
    """Read a conflict log; None if none of its lines can be used.

    Args:
        path: conflicts.jsonl.
        runs: of the report, among which the heat map's cells are shared.
    """
    with path.open("rb") as file:
        lines = sum(1 for _ in file)
    notes: list[str] = []
    return summarise(json_lines(path, notes), lines, runs, notes)


def summarise(records: Iterable[Any], count: int, runs: int = 1, notes: list[str] | None = None) -> Conflicts | None:
    """`read_conflicts` of parsed lines.

    Args:
        records: the lines' values, in order of steps.
        count: how many there are, at most; sets the width of the heat map's columns.
    """
    reader, incomplete = None, 0
    for record in records:
        parsed = _parse(record)
        if parsed is None:
            incomplete += 1
            continue
        reader = reader or _Reader(record, count, runs)
        reader.add(record, *parsed)
    if reader is None:
        return None
    return reader.finish(notes or [], incomplete)


class _Reader:
    """Adds up the lines of a log that have the layout of its first one."""

    def __init__(self, first: dict[str, Any], count: int, runs: int):
        self.count, self.runs = count, runs
        self._other_layout = 0
        self._repeated = 0
        self._start(first)

    def add(self, record: dict[str, Any], gramian: Array, weights: Array) -> None:
        result = self.result
        if _layout(record) != (result.domains, result.modules, result.kinds):
            self._other_layout += 1
        elif result.steps and record["step"] <= result.steps[-1]:
            self._repeated += 1
        else:
            self._add(record["step"], gramian, weights)

    def _start(self, record: dict[str, Any]) -> None:
        domains, modules, kinds = _layout(record)
        pairs = [(a, b) for a in range(len(domains)) for b in range(a + 1, len(domains))]
        cells = HEATMAP_CELLS // self.runs // max(1, len(pairs) * len(modules))
        self.columns = max(1, min(HEATMAP_COLUMNS, cells, self.count))
        names = list(dict.fromkeys(kinds))
        shape = (len(modules) + len(names) + 1, len(pairs))
        self.result = Conflicts(
            domains, modules, kinds, tuple(_layer(name) for name in modules), pairs,
            RunningMean(shape), RunningMean(shape), np.zeros(shape),
            np.zeros((len(pairs), len(modules), self.columns)), WeightSums(len(modules), len(domains)),
        )  # fmt: skip
        self._heat_counts = np.zeros_like(self.result.heat)
        self._first = np.array([a for a, _ in pairs], dtype=int)
        self._second = np.array([b for _, b in pairs], dtype=int)
        # Modules of each kind, then all of them: the rows after the modules' own.
        self._groups = np.array(
            [*[[kind == name for kind in kinds] for name in names], [True] * len(kinds)], dtype=float
        )
        self._removed = np.zeros((len(self._groups), 2))
        for pair in range(len(pairs)):
            for value in ("cosine", "norm_ratio", "share"):
                self.result.series[f"pair/{self.result.pair_name(pair)}/{value}"] = []
        for name in domains:
            self.result.series[f"weight/{name}"] = []
        self.result.series["removed"] = []

    def _add(self, step: int, gramian: Array, weights: Array) -> None:
        result = self.result
        column = min(len(result.steps) * self.columns // max(self.count, 1), self.columns - 1)
        rows = np.concatenate([gramian, np.tensordot(self._groups, gramian, 1)])
        inner = rows[:, self._first, self._second]
        norms = np.sqrt(np.maximum(np.diagonal(rows, axis1=1, axis2=2), 0.0))
        scale = norms[:, self._first] * norms[:, self._second]
        cosine = np.divide(inner, scale, out=np.zeros_like(inner), where=scale > 0)
        present = norms[-1] > 0
        measured = present[self._first] & present[self._second]
        valid = np.broadcast_to(measured, inner.shape)
        result.inner.add(inner, valid)
        result.cosine.add(cosine, valid)
        result.negative += valid & (inner < 0)
        modules = len(result.modules)
        result.heat[:, :, column] += np.where(valid, cosine, 0.0)[:modules].T
        self._heat_counts[:, :, column] += valid[:modules].T
        if column == len(result.columns):
            result.columns.append((step, step))
        result.columns[-1] = (result.columns[-1][0], step)
        result.steps.append(step)
        self._add_pair_series(inner, cosine, norms[-1], measured)
        self._add_weights(gramian, weights, present)

    def _add_pair_series(self, inner: Array, cosine: Array, norms: Array, measured: Any) -> None:
        result = self.result
        shares = (inner[: len(result.modules)] < 0).mean(0)
        for pair, (a, b) in enumerate(result.pairs):
            name, seen = result.pair_name(pair), measured[pair]
            result.series[f"pair/{name}/cosine"].append(cosine[-1, pair] if seen else np.nan)
            result.series[f"pair/{name}/norm_ratio"].append(norms[a] / norms[b] if seen else np.nan)
            result.series[f"pair/{name}/share"].append(shares[pair] if seen else np.nan)

    def _add_weights(self, gramian: Array, weights: Array, present: Any) -> None:
        result = self.result
        for name, weight, seen in zip(result.domains, result.weights.add(gramian, weights), present, strict=True):
            result.series[f"weight/{name}"].append(weight if seen else np.nan)
        difference = 1.0 - weights
        changed = self._groups @ np.einsum("md,mde,me->m", difference, gramian, difference)
        plain = self._groups @ gramian.sum((1, 2))
        removed = [relative_norm(c, p) for c, p in zip(changed, plain, strict=True)]
        result.series["removed"].append(removed[-1])
        self._removed += [[0.0, 0.0] if np.isnan(value) else [value, 1.0] for value in removed]

    def finish(self, notes: list[str], incomplete: int) -> Conflicts:
        """The summary, with `notes` of the reader below and of lines that could not be used."""
        result = self.result
        used = len(result.columns)
        heat, counts = result.heat[:, :, :used], self._heat_counts[:, :, :used]
        result.heat = np.divide(heat, counts, out=np.full(heat.shape, np.nan), where=counts > 0)
        result.removed_mean = {
            name: total / steps if steps else np.nan
            for name, (total, steps) in zip([*result.kind_names, WHOLE], self._removed, strict=True)
        }
        reasons = {
            "lack a field or hold something else than finite numbers": incomplete,
            "name other domains or modules than its first line": self._other_layout,
            "repeat earlier steps": self._repeated,
        }
        said = [f"Lines of conflicts.jsonl left out because they {why}: {n}." for why, n in reasons.items() if n]
        result.notes = [*notes, *said]
        return result


def _layout(record: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return tuple(record["domains"]), tuple(record["modules"]), tuple(record["kinds"])


def _parse(record: Any) -> tuple[Array, Array] | None:
    """Gramian `[M, T, T]` and weights `[M, T]`; None if the line does not hold them, or not only numbers."""
    try:
        modules, domains = len(record["modules"]), len(record["domains"])
        gramian = np.asarray(record["gramian"], dtype=np.float64)
        weights = np.asarray(record["weights"], dtype=np.float64)
        whole = isinstance(record["step"], int) and len(record["kinds"]) == modules > 0 and domains > 0
    except (KeyError, TypeError, ValueError):
        return None
    if not whole or gramian.shape != (modules, domains, domains) or weights.shape != (modules, domains):
        return None
    return (gramian, weights) if np.isfinite(gramian).all() and np.isfinite(weights).all() else None


def _layer(module: str) -> int:
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", module)
    return int(found[1]) if found else -1
