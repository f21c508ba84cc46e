"""What `python -m mgs_trl.study` left: each strategy's held-out score over seeds, and how it differs from another."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TABLE = "study.csv"
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
    """

    path: Path
    name: str
    regimes: dict[str, list[Row]]

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
    return Study(path, name, {regime: list(rows.values()) for regime, rows in regimes.items()})


def _add(regimes: dict[str, dict[tuple[str, str], Row]], line: Mapping[str, str]) -> None:
    key = line["strategy"], line["against"]
    rows = regimes.setdefault(line["regime"], {})
    row = rows.setdefault(key, Row(*key, int(line["seeds"]), int(line["pairs"]), {}))
    values = (float(line[name]) for name in ("mean", "standard_error", "difference", "low", "high"))
    row.gaps[line["domain"]] = Gap(*values)
