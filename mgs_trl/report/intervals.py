"""Paired differences as dots on whiskers: where each lies on an axis that all strategies of a regime share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mgs_trl.report.studies import Gap, Row, Study

_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True)
class IntervalPlot:
    """Differences of one domain in one regime.

    Attributes:
        rows: `(strategy, against, gap)`, those that have a difference.
        ticks: values to write at the axis; zero is among them.
    """

    domain: str
    rows: list[tuple[str, str, Gap]]
    ticks: list[float]

    def at(self, value: float) -> float:
        """Place of a value on the axis, percent of its length."""
        low, high = self.ticks[0], self.ticks[-1]
        return round(100 * (value - low) / (high - low), 2)


def interval_plots(study: Study, regime: str) -> list[IntervalPlot]:
    """One plot per domain, the mean first; none where nothing can be compared."""
    rows = study.regimes[regime]
    domains = sorted(study.domains, key=lambda name: name != "mean")
    return [plot for domain in domains if (plot := _plot(rows, domain)) is not None]


def _plot(rows: Sequence[Row], domain: str) -> IntervalPlot | None:
    gaps = [(row.strategy, row.against, row.gaps[domain]) for row in rows if domain in row.gaps]
    shown = [(name, against, gap) for name, against, gap in gaps if math.isfinite(gap.difference)]
    ends = [value for _, _, gap in shown for value in (gap.low, gap.difference, gap.high) if math.isfinite(value)]
    return IntervalPlot(domain, shown, _ticks(min([*ends, 0.0]), max([*ends, 0.0]))) if shown else None


def _ticks(low: float, high: float) -> list[float]:
    """Round values, at most seven, whose first and last enclose `low` and `high`."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(step * power for step in _STEPS if step * power >= span / 5 * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]
