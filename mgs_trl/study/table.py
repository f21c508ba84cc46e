"""A study's results as tables: for the terminal, as markdown, and as CSV."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from mgs_trl.study.plan import MEAN
from mgs_trl.study.results import Cell, Results, Stage
from mgs_trl.study.statistics import Difference, Mean

BAR = r"\|"  # a bar inside a cell of markdown


@dataclass(frozen=True)
class Grid:
    """A titled table of texts."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def rich(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for i, name in enumerate(self.header):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", _row(self.header), _row(["---"] + ["---:"] * (len(self.header) - 1))]
        return "\n".join([*lines, *map(_row, self.rows)]) + "\n"


def grids(results: Results, missing: Sequence[tuple[str, str]]) -> list[Grid]:
    """Everything there is to say; tables without rows are left out."""
    tables = [_base(results)]
    for regime in results.study.regimes:
        tables += [
            _scores(results, regime),
            _differences(f"{regime}: difference to {results.study.baseline}", results, results.cells(regime)),
            _differences(f"{regime}: further differences", results, results.contrasts(regime)),
            _stages(results, regime),
            _entropy(results, regime),
        ]
    tables.append(Grid("Runs without a result", ("run", "why"), [*missing]))
    return [table for table in tables if table.rows]


def write_csv(results: Results, path: Path) -> None:
    """One line per regime, strategy (or pair) and domain."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                *("regime", "strategy", "domain", "mean", "standard_error", "seeds"),
                *("against", "difference", "low", "high", "pairs", "positive"),
            ]
        )
        for regime in results.study.regimes:
            for cell in [*results.cells(regime), *results.contrasts(regime)]:
                score, gap = cell.score, cell.difference
                writer.writerow(
                    [
                        *(regime, cell.strategy, cell.domain, score.mean, score.error, score.n),
                        *(cell.against, gap.mean, gap.low, gap.high, gap.n, gap.positive),
                    ]
                )


def _base(results: Results) -> Grid:
    base = results.base()
    row = ("score", *(_score(base[domain]) for domain in results.domains), str(base[MEAN].n))
    return Grid("Before training", ("", *results.domains, "checkpoints"), [row] if base[MEAN].n else [])


def _scores(results: Results, regime: str) -> Grid:
    cells = {(cell.strategy, cell.domain): cell.score for cell in results.cells(regime)}
    rows = []
    for strategy in results.strategies(regime):
        scores = [cells[strategy, domain] for domain in results.domains]
        seconds = results.seconds(regime, strategy).mean
        rows.append((strategy, *map(_score, scores), str(scores[-1].n), f"{seconds:.0f}"))
    return Grid(f"{regime}: held-out score", ("strategy", *results.domains, "seeds", "seconds a run"), rows)


def _differences(title: str, results: Results, cells: Sequence[Cell]) -> Grid:
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.strategy != cell.against:
            rows.setdefault((cell.strategy, cell.against), []).append(cell)
    further = any(against != results.study.baseline for _, against in rows)
    header = ("strategy", *results.domains, "pairs", "higher in")
    texts = [
        (
            f"{strategy} - {against}" if further else strategy,
            *(_difference(cell.difference) for cell in row),
            str(row[-1].difference.n),
            str(row[-1].difference.positive),
        )
        for (strategy, against), row in rows.items()
    ]
    return Grid(f"{title} (95 % interval)", header, texts)


def _stages(results: Results, regime: str) -> Grid:
    rows = [
        (stage.order, stage.domain, _difference(stage.forgetting), _difference(stage.rigidity), _pairs(stage))
        for stage in results.stages(regime)
    ]
    return Grid(f"{regime}: sequential training", ("order", "domain", "forgetting", "rigidity", "seeds"), rows)


def _pairs(stage: Stage) -> str:
    """Seeds of the one and of the other, once if they are as many; runs that one of them needs may be missing."""
    counts = (stage.forgetting.n, stage.rigidity.n)
    return " and ".join(dict.fromkeys(str(n) for n in counts if n)) or "0"


def _entropy(results: Results, regime: str) -> Grid:
    domains = [domain for domain in results.domains if domain != MEAN]
    rows = []
    for strategy in results.strategies(regime):
        thirds = results.entropy(regime, strategy)
        rows.append((strategy, *(" > ".join(f"{v:.2f}" for v in thirds.get(domain, [])) for domain in domains)))
    title = f"{regime}: entropy while training, nats per token, by thirds of the run"
    return Grid(title, ("strategy", *domains), [row for row in rows if any(row[1:])])


def _score(value: Mean) -> str:
    return f"{value.mean:.3f}" + ("" if math.isnan(value.error) else f" ± {value.error:.3f}")


def _difference(value: Difference) -> str:
    if value.n == 0:
        return "-"
    interval = "" if math.isnan(value.low) else f" [{value.low:+.3f}, {value.high:+.3f}]"
    return f"{value.mean:+.3f}{interval}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"
