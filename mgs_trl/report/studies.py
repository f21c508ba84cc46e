"""What `python -m mgs_trl.study` left: each strategy's held-out score over seeds, and how it differs from another."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mgs_trl.records.redact import redact, redact_command

TABLE, TEXT, RECIPE, LAUNCHES = "study.csv", "study.md", "study.yaml", "study.json"
_IN_CSV = ("held-out score", "difference to", "further differences")  # titles of tables that the CSV holds
CONFIDENCE = 0.95  # of the intervals in the table


@dataclass(frozen=True)
class Gap:
    """A paired difference over seeds with its interval, and the score that it belongs to."""

    score: float
    error: float
    difference: float
    low: float
    high: float

    @property
    def level(self) -> int:
        """1 or -1 where the interval lies above or below zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Row:
    """A strategy against another; `gaps` by domain, `mean` among them."""

    strategy: str
    against: str
    seeds: int
    pairs: int
    gaps: dict[str, Gap]


@dataclass
class Study:
    """One study directory.

    Attributes:
        name: short and unique among the studies of a report.
        regimes: rows by regime, in the table's order; those against the strategy itself have no difference.
        tables: `(title, header, rows)` of what else the study wrote: before training, sequences, entropy, failed runs.
        recipe: the resolved recipe as YAML, without credentials; empty without one.
        launches: when, how and with which versions the study was started, each time.
    """

    path: Path
    name: str
    regimes: dict[str, list[Row]]
    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)
    recipe: str = ""
    launches: list[dict[str, Any]] = field(default_factory=list)

    @property
    def domains(self) -> list[str]:
        """In the table's order, `mean` last."""
        return list(next(iter(self.regimes.values()))[0].gaps)

    @property
    def told(self) -> tuple[int, int]:
        """How many differences of the mean have intervals without zero, and how many differences there are."""
        gaps = [row.gaps["mean"] for rows in self.regimes.values() for row in rows if "mean" in row.gaps]
        tested = [gap for gap in gaps if math.isfinite(gap.low)]
        return sum(gap.level != 0 for gap in tested), len(tested)


def is_study(directory: Path) -> bool:
    """Whether a directory is a study's, not a run's."""
    return (directory / TABLE).is_file()


def read_studies(directories: Sequence[Path], names: Sequence[str]) -> list[Study]:
    """Read the tables of studies.

    Raises:
        ValueError: a table that lacks a column or holds no line.
    """
    return [_read(path, name) for path, name in zip(directories, names, strict=True)]


def _read(path: Path, name: str) -> Study:
    regimes: dict[str, dict[tuple[str, str], Row]] = {}
    with (path / TABLE).open(newline="") as file:
        for line in csv.DictReader(file):
            try:
                _add(regimes, line)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path / TABLE} is damaged: {error!r} in {line}.") from None
    if not regimes:
        raise ValueError(f"{path / TABLE} holds no line.")
    study = Study(path, name, {regime: list(rows.values()) for regime, rows in regimes.items()})
    tables = _tables(_text(path / TEXT))
    study.tables = [table for table in tables if not any(title in table[0] for title in _IN_CSV)]
    try:
        recipe, launches = yaml.safe_load(_text(path / RECIPE)), json.loads(_text(path / LAUNCHES) or "{}")
        study.launches = [{**e, "command": redact_command(e["command"])} for e in launches.get("launches", [])]
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path / RECIPE} or {LAUNCHES} is damaged: {error!r}.") from None
    study.recipe = yaml.safe_dump(redact(recipe), sort_keys=False, allow_unicode=True) if recipe else ""
    return study


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _tables(text: str) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of every table of study.md."""
    found: list[tuple[str, list[str], list[list[str]]]] = []
    for line in text.splitlines():
        if line.startswith("### "):
            found.append((line.removeprefix("### "), [], []))
        elif line.startswith("| ") and found and not line.startswith("| ---"):
            _, header, rows = found[-1]
            cells = [cell.strip().replace(r"\|", "|") for cell in line.strip("|").split(" | ")]
            rows.append(cells) if header else header.extend(cells)
    return found


def _add(regimes: dict[str, dict[tuple[str, str], Row]], line: Mapping[str, str]) -> None:
    key = line["strategy"], line["against"]
    rows = regimes.setdefault(line["regime"], {})
    row = rows.setdefault(key, Row(*key, int(line["seeds"]), int(line["pairs"]), {}))
    values = (float(line[name]) for name in ("mean", "standard_error", "difference", "low", "high"))
    row.gaps[line["domain"]] = Gap(*values)
