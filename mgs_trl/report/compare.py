"""Held-out scores before and after, and where several runs differ."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mgs_trl.records.redact import redact
from mgs_trl.report.charts import Chart, make_chart
from mgs_trl.report.read import RunFiles

_HELDOUT = re.compile(r"eval_domain/(.+)/reward")
_IGNORED = ("trainer.output_dir", "trainer.logging_dir", "trainer.run_name")


@dataclass(frozen=True)
class Score:
    """Held-out reward of one domain at its first and last evaluation; `after` is None with only one."""

    first_step: int
    before: float
    last_step: int
    after: float | None

    @property
    def change(self) -> float | None:
        return None if self.after is None else self.after - self.before


def heldout(run: RunFiles) -> dict[str, Score]:
    """Score by domain, for the domains that were evaluated."""
    scores = {}
    for metric in run.metrics():
        if match := _HELDOUT.fullmatch(metric):
            steps, values = run.series(metric)
            if steps:
                after = values[-1] if len(steps) > 1 else None
                scores[match[1]] = Score(steps[0], values[0], steps[-1], after)
    return scores


def mean_change(scores: Mapping[str, Score], domains: Sequence[str]) -> tuple[float, float] | None:
    """Plain mean over domains before and after; None unless all of them have both."""
    chosen = [scores[name] for name in domains if name in scores]
    after = [score.after for score in chosen if score.after is not None]
    if len(chosen) != len(domains) or len(after) != len(chosen) or not chosen:
        return None
    return sum(score.before for score in chosen) / len(chosen), sum(after) / len(after)


def settings(run: RunFiles, hide: bool = False) -> dict[str, Any]:
    """Everything set, by dotted name: the recipe, or the trainer's arguments of a run without one.

    Args:
        hide: leave out the values of credentials.
    """
    launched = {"trainer": run.launches[-1].get("settings", {})} if run.launches else {}
    content = run.recipe or launched
    return flatten(redact(content) if hide else content) if content else {}


def setting(run: RunFiles, name: str) -> Any:
    """A field of MGSConfig as the run had it: from its arguments, else from its recipe; None if neither names it."""
    launch = run.launches[-1].get("settings") if run.launches else None
    for source in (launch, run.recipe.get("trainer")):
        if isinstance(source, Mapping) and name in source:
            return source[name]
    return None


def differences(runs: Sequence[RunFiles]) -> list[tuple[str, list[str]]]:
    """Settings in which the runs are not all alike: `(name, value in each run)`; `not set` where a run has none.

    Credentials are hidden; that they differ is not.
    """
    raw, shown = [settings(run) for run in runs], [settings(run, hide=True) for run in runs]
    names = sorted({name for values in raw for name in values if name not in _IGNORED})
    differ = [name for name in names if len({str(values.get(name, "not set")) for values in raw}) > 1]
    return [(name, [str(values.get(name, "not set")) for values in shown]) for name in differ]


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    result: dict[str, Any] = {}
    for key, inner in value.items():
        result.update(flatten(inner, f"{prefix}.{key}" if prefix else str(key)))
    return result


def comparison_charts(runs: Sequence[RunFiles], domains: Sequence[str]) -> list[Chart]:
    """Held-out reward of each domain with a line per run, or training reward where a domain was never evaluated."""
    charts = []
    for name in domains:
        for title, metric in (("held-out reward", f"eval_domain/{name}/reward"), ("reward", f"domain/{name}/reward")):
            chart = make_chart(
                f"{name}: {title}", "one line per run", [(r.name, i, *r.series(metric)) for i, r in enumerate(runs)]
            )
            if chart is not None:
                charts.append(chart)
                break
    return charts
