"""The page: facts of every run, rendered by one template with its styles, scripts and data inside."""

import base64
import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

import mgs_trl
from mgs_trl.report.charts import MAX_POINTS, Chart, significant
from mgs_trl.report.compare import comparison_charts, differences, heldout, mean_change
from mgs_trl.report.conflicts import Conflicts, read_conflicts
from mgs_trl.report.cost import duration
from mgs_trl.report.facts import RunFacts, run_facts
from mgs_trl.report.intervals import interval_plots
from mgs_trl.report.read import read_runs, short_names
from mgs_trl.report.studies import CONFIDENCE, Study, is_study, read_studies

HEAT_SCALE = 32767  # cosines are kept as 16-bit integers: cosine = integer / 32767
HEAT_MISSING = -32768


def write_report(output_dirs: Sequence[Path], out: Path) -> list[str]:
    """Write one HTML file about the runs and studies in `output_dirs`; it needs no network and no other file.

    Args:
        output_dirs: what the runs (`mgs_trl.train`) and studies (`mgs_trl.study`) wrote to.
        out: the file; its folder must exist.

    Returns:
        What is missing or damaged, in sentences (the report says the same).

    Raises:
        ValueError: a directory that is none, or that holds nothing of a run; an `out` that cannot be a file.
    """
    study_dirs = [directory.resolve() for directory in output_dirs if is_study(directory)]
    studies = read_studies(study_dirs, short_names(study_dirs)) if study_dirs else []
    run_dirs = [directory for directory in output_dirs if directory.resolve() not in study_dirs]
    files = read_runs(run_dirs) if run_dirs else []
    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(f"--out is {str(out)!r}, but it must be a file in an existing directory.")
    runs = []
    for run in files:
        conflicts = read_conflicts(run.conflicts, len(files)) if run.conflicts else None
        if run.conflicts and conflicts is None:
            run.notes.append("conflicts.jsonl holds no whole line; nothing can be said per module.")
        runs.append(run_facts(run, conflicts))
    out.write_text(render(runs, studies), encoding="utf-8", errors="replace")
    several = len(runs) > 1
    return [f"{run.name}: {note}" if several else note for run in runs for note in run.notes]


def render(runs: Sequence[RunFacts], studies: Sequence[Study] = ()) -> str:
    """The HTML of a report."""
    comparison = _comparison(runs) if len(runs) > 1 else None
    environment = Environment(
        loader=PackageLoader("mgs_trl.report", "assets"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["finite"] = math.isfinite
    environment.filters.update(number=number, signed=signed, percent=percent, duration=duration)
    return environment.get_template("page.html").render(
        runs=runs,
        studies=studies,
        interval_plots=interval_plots,
        chance=(1 - CONFIDENCE),
        comparison=comparison,
        style=_asset("style.css"),
        scripts=[_asset(name) for name in ("charts.js", "heatmap.js", "page.js")],
        data=Markup(embedded(runs, comparison["charts"] if comparison else [])),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=mgs_trl.__version__,
        max_points=MAX_POINTS,
    )


def _asset(name: str) -> Markup:
    return Markup((resources.files("mgs_trl.report") / "assets" / name).read_text(encoding="utf-8"))


def embedded(runs: Sequence[RunFacts], comparison: Sequence[Chart]) -> str:
    """The data of charts and heat maps as JSON that can stand inside a script element."""
    data = {
        "comparison": [chart.to_json() for chart in comparison],
        "runs": [
            {
                "name": run.name,
                "charts": {name: [chart.to_json() for chart in charts] for name, charts in run.charts.items()},
                "heat": _heat(run.conflicts) if run.conflicts else None,
                "means": _means(run),
                "stages": run.files.stages,
            }
            for run in runs
        ],
    }
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _heat(conflicts: Conflicts) -> dict[str, Any] | None:
    if not conflicts.pairs:
        return None
    scaled = np.where(np.isnan(conflicts.heat), HEAT_MISSING, np.rint(np.clip(conflicts.heat, -1, 1) * HEAT_SCALE))
    return {
        "pairs": [conflicts.pair_name(p) for p in range(len(conflicts.pairs))],
        "modules": conflicts.modules,
        "kinds": conflicts.kinds,
        "layers": conflicts.layers,
        "columns": conflicts.columns,
        "cosines": [base64.b64encode(pair.astype("<i2").tobytes()).decode() for pair in scaled],
    }


def _means(run: RunFacts) -> list[dict[str, Any]]:
    """The numbers behind the table of modules, kinds and the whole model."""
    keys = ("inner", "inner_error", "cosine", "cosine_error", "negative")
    return [
        {"row": row, "pair": v.pair, "steps": v.steps, **{key: significant(getattr(v, key)) for key in keys}}
        for row, verdicts in run.verdicts.items()
        for v in verdicts
    ]


def _comparison(runs: Sequence[RunFacts]) -> dict[str, Any]:
    scores = [heldout(run.files) for run in runs]
    domains = sorted({name for score in scores for name in score})
    trained = sorted({name for run in runs for name in run.domains})
    return {
        "domains": domains,
        "last_steps": sorted({s.last_step for score in scores for s in score.values()}),
        "rows": [
            {"run": run, "scores": score, "mean": mean_change(score, domains)}
            for run, score in zip(runs, scores, strict=True)
        ],
        "charts": comparison_charts([run.files for run in runs], trained),
        "differences": differences([run.files for run in runs]),
        "costs": [run for run in runs if run.cost.step is not None],
    }


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits; a dash for what is missing."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}g}"
    return re.sub(r"e([+-])0*(\d)", r"e\1\2", text).replace("e+", "e").replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """`digits` decimals, with the sign of what is not zero by then."""
    if value is None or not math.isfinite(value):
        return "–"
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.0%}"
