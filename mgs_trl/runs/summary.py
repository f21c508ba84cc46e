"""The tables that close a run: held-out scores before and after, and the conflicts met on the way."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

_HELDOUT = re.compile(r"eval_domain/(?P<domain>.+)/reward")
_PAIR = re.compile(r"conflict/(?P<pair>.+~.+)/(?P<value>cosine|share)")


@dataclass
class Pair:
    """Two domains in every log, a mean over the steps since the last: cosine of their gradients, share of modules
    where it is negative."""

    cosine: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)


def read_log(output: Path) -> list[dict[str, Any]]:
    """Everything that the run of an output directory logged; nothing if it logged nothing."""
    path = output / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def heldout_scores(log_history: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float | None, float]]:
    """First and last held-out reward of each domain, None and the only one if there was one evaluation."""
    scores: dict[str, list[float]] = {}
    for entry in log_history:
        for key, value in entry.items():
            match = _HELDOUT.fullmatch(key)
            if match:
                scores.setdefault(match["domain"], []).append(float(value))
    return {name: (values[0] if values[1:] else None, values[-1]) for name, values in sorted(scores.items())}


def conflicts(log_history: Iterable[Mapping[str, Any]]) -> dict[str, Pair]:
    """What was logged of each pair of domains, logs left out in which one of them had no gradient."""
    pairs: dict[str, Pair] = {}
    for entry in log_history:
        for key, value in entry.items():
            match = _PAIR.fullmatch(key)
            if match and all(entry.get(f"domain/{name}/grad_norm") != 0 for name in match["pair"].split("~")):
                pair = pairs.setdefault(match["pair"], Pair())
                (pair.cosine if match["value"] == "cosine" else pair.share).append(float(value))
    return dict(sorted(pairs.items()))


def closing_tables(log_history: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The tables of a finished run; those without data are left out."""
    tables = []
    scores = heldout_scores(log_history)
    if scores:
        table = Table("domain", "before", "after", "change", title="Held-out reward")
        for domain, (before, after) in scores.items():
            change = ("-", f"{after:.3f}", "-") if before is None else _change(before, after)
            table.add_row(domain, *change)
        tables.append(table)
    pairs = conflicts(log_history)
    if pairs:
        table = Table(
            "domains",
            "mean cosine",
            "logs in conflict",  # each the mean of its steps: no count of steps
            "modules in conflict",
            title="Conflicts between domains",
        )
        for name, pair in pairs.items():
            negative = [cosine < 0 for cosine in pair.cosine]
            table.add_row(
                name.replace("~", "\n"),
                f"{_mean(pair.cosine):+.3f}",
                _percent(negative),
                _percent(pair.share),
            )
        removed = [float(entry["surgery/removed"]) for entry in log_history if "surgery/removed" in entry]
        if removed:
            # The median: a step whose plain sum nearly vanishes has a ratio of any size.
            table.caption = f"Surgery changed the update by {median(removed):.1%} of its norm in the median log."
        tables.append(table)
    return tables


def _change(before: float, after: float) -> tuple[str, str, str]:
    return f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _percent(values: Sequence[float]) -> str:
    return f"{_mean(values):.0%}" if values else "-"
