"""The line charts of a run: which series they show, downsampled to what a screen can show."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from mgs_trl.report.conflicts import Conflicts
from mgs_trl.report.read import RunFiles

MAX_POINTS = 1000

# title, what is shown, metric of a domain, metric of all rows together, logarithmic
_DOMAIN_CHARTS = (
    ("Reward", "training completions, mean", "domain/{d}/reward", "reward", False),
    ("Held-out reward", "evaluation, mean", "eval_domain/{d}/reward", "eval_reward", False),
    ("Entropy", "nats per token", "domain/{d}/entropy", "entropy", False),
    ("Length", "tokens per completion", "domain/{d}/mean_length", "completions/mean_length", False),
    ("No signal", "share of prompts with all-equal rewards", "domain/{d}/frac_zero_std", "frac_reward_zero_std", False),
    ("Cut", "share at the maximum length", "domain/{d}/clipped_ratio", "completions/clipped_ratio", False),
    ("KL", "nats per token, to the reference", "domain/{d}/kl", "kl", False),
    ("Gradient norm", "before surgery and clipping", "domain/{d}/grad_norm", "grad_norm", True),
)
ALL_ROWS = "all rows"
_COSINE = re.compile(r"conflict/(.+~.+)/cosine")
_DOMAIN = re.compile(r"domain/(.+)/grad_norm")


@dataclass
class Series:
    """One line. `low` and `high` are the extremes of what a point is the mean of; empty if nothing was averaged."""

    label: str
    style: int
    steps: list[int]
    values: list[float | None]
    low: list[float | None] = field(default_factory=list)
    high: list[float | None] = field(default_factory=list)


@dataclass
class Chart:
    title: str
    subtitle: str
    series: list[Series]
    logarithmic: bool = False
    zero: bool = False
    points: int = 0  # of the longest series before downsampling

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "logarithmic": self.logarithmic,
            "zero": self.zero,
            "series": [vars(series) for series in self.series],
        }

    @property
    def shown(self) -> int:
        return max((len(series.steps) for series in self.series), default=0)


def make_chart(
    title: str,
    subtitle: str,
    lines: Sequence[tuple[str, int, Sequence[int], Sequence[float]]],
    logarithmic: bool = False,
    zero: bool = False,
) -> Chart | None:
    """A chart of `(label, style, steps, values)`; None if no line has a finite value."""
    kept = [line for line in lines if any(math.isfinite(value) for value in line[3])]
    if not kept:
        return None
    series = [_downsample(*line, logarithmic) for line in kept]
    return Chart(title, subtitle, series, logarithmic, zero, max(len(line[2]) for line in kept))


def domain_charts(run: RunFiles, domains: Sequence[str]) -> tuple[list[Chart], list[str]]:
    """Charts over steps with a line per domain, and sentences about domains that have none.

    Where a metric was not logged by domain (another trainer, or one domain), the chart shows that of all rows.
    """
    charts, missing = [], []
    for title, subtitle, metric, of_all_rows, logarithmic in _DOMAIN_CHARTS:
        lines = [(name, i, *run.series(metric.format(d=name))) for i, name in enumerate(domains)]
        absent = [label for label, _, steps, _ in lines if not steps]
        if len(absent) == len(lines):
            lines = [(ALL_ROWS, len(domains), *run.series(of_all_rows))]
        elif absent:
            missing.append(f"{title}: nothing was logged of {', '.join(absent)}.")
        chart = make_chart(title, subtitle, lines, logarithmic)
        if chart is not None:
            charts.append(chart)
    return charts, missing


def conflict_charts(run: RunFiles, conflicts: Conflicts | None) -> list[Chart]:
    """Cosine, norm ratio and conflict share of every pair; from the trackers' metrics without a conflict log."""
    if conflicts is not None:
        pairs = [conflicts.pair_name(i) for i in range(len(conflicts.pairs))]
        get = {
            value: [(p, i, conflicts.steps, conflicts.series[f"pair/{p}/{value}"]) for i, p in enumerate(pairs)]
            for value in ("cosine", "norm_ratio", "share")
        }
    else:
        logged = ["~".join(pair) for pair in logged_pairs(run)]
        get = {
            value: [(p, i, *run.series(f"conflict/{p}/{value}")) for i, p in enumerate(logged)]
            for value in ("cosine", "share")
        }
        get["norm_ratio"] = [("~".join(p), i, *_norm_ratio(run, *p)) for i, p in enumerate(logged_pairs(run))]
    charts = [
        make_chart("Cosine", "of two domains' gradients, whole model; below 0 they conflict", get["cosine"], zero=True),
        make_chart("Norm ratio", "norm of the first domain's gradient over the second's", get["norm_ratio"], True),
        make_chart("Modules in conflict", "share with a negative inner product; noise alone gives 0.5", get["share"]),
    ]
    return [chart for chart in charts if chart is not None]


def surgery_charts(run: RunFiles, conflicts: Conflicts | None, domains: Sequence[str]) -> list[Chart]:
    """Weights per domain and what surgery removed."""
    if conflicts is not None:
        weights = [(d, i, conflicts.steps, conflicts.series[f"weight/{d}"]) for i, d in enumerate(conflicts.domains)]
        removed = (conflicts.steps, conflicts.series["removed"])
    else:
        weights = [(d, i, *run.series(f"surgery/weight/{d}")) for i, d in enumerate(domains)]
        removed = run.series("surgery/removed")
    charts = [
        make_chart("Weights", "what each domain's gradient was multiplied by, mean over the model", weights),
        make_chart("Removed by surgery", "norm of the change relative to the plain sum", [("change", 0, *removed)]),
    ]
    return [chart for chart in charts if chart is not None]


def logged_pairs(run: RunFiles) -> list[tuple[str, str]]:
    """Pairs of domains whose cosine is in the run's metrics."""
    metrics = run.metrics()
    known = {match[1] for metric in metrics if (match := _DOMAIN.fullmatch(metric))}
    texts = [match[1] for metric in metrics if (match := _COSINE.fullmatch(metric))]
    return [pair for text in texts if (pair := _split_pair(text, known)) is not None]


def _split_pair(text: str, known: Collection[str]) -> tuple[str, str] | None:
    """The two domains of `a~b`, whose names may hold a `~` themselves: those that are `known`, else any two."""
    parts = text.split("~")
    splits = [("~".join(parts[:i]), "~".join(parts[i:])) for i in range(1, len(parts))]
    return next((pair for pair in splits if set(pair) <= set(known)), next(iter(splits), None))


def significant(value: float) -> float | None:
    """Seven significant digits, which is more than a screen shows; None for what is not finite."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _norm_ratio(run: RunFiles, *pair: str) -> tuple[list[int], list[float]]:
    first, second = (dict(zip(*run.series(f"domain/{name}/grad_norm"), strict=True)) for name in pair)
    steps = [step for step in first if second.get(step, 0.0) > 0 and first[step] > 0]
    return steps, [first[step] / second[step] for step in steps]


def _downsample(label: str, style: int, steps: Sequence[int], values: Sequence[float], logarithmic: bool) -> Series:
    """Means of runs of successive points, at most `MAX_POINTS` of them; a point stands at the last step of its run.

    On a logarithmic axis they are geometric means of the positive values."""
    count = len(steps)
    if count <= MAX_POINTS:
        return Series(label, style, list(steps), [significant(value) for value in values])
    series = Series(label, style, [], [])
    for i in range(MAX_POINTS):
        start, end = i * count // MAX_POINTS, (i + 1) * count // MAX_POINTS
        finite = [v for v in values[start:end] if math.isfinite(v) and (v > 0 or not logarithmic)]
        series.steps.append(steps[end - 1])
        mean, low, high = (_mean(finite, logarithmic), min(finite), max(finite)) if finite else (math.nan,) * 3
        series.values.append(significant(mean))
        series.low.append(significant(low))
        series.high.append(significant(high))
    return series


def _mean(values: Sequence[float], geometric: bool) -> float:
    if geometric:
        return math.exp(sum(math.log(value) for value in values) / len(values))
    return sum(values) / len(values)
