"""Score completions with a recipe's verifiers, without a model or a run: `python -m mgs_trl.score RECIPE FILE.jsonl`.

Each line of the file is an object with `domain`, `prompt`, `completion` (a text, or messages), and the columns that the
domain's verifiers read. For looking at rewards before GPU hours are spent on them.
"""

import argparse
import asyncio
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mgs_trl.recipe import load_recipe
from mgs_trl.verifiers import Verifier, VerifierError, build_verifier
from mgs_trl.verifiers.completions import completion_text
from mgs_trl.verifiers.pool import PoolError

Row = dict[str, Any]
Weighted = list[tuple[Callable[..., Any], float]]


def score_rows(rows: Sequence[Row], verifiers: dict[str, Weighted]) -> list[dict[str, float | None]]:
    """Scores of each row by verifier name, and their weighted sum as `reward` (None where nothing scored the row).

    Raises:
        ValueError: a row of an unknown domain, or one that a verifier of its domain cannot score.
    """
    for number, row in enumerate(rows, start=1):
        if row.get("domain") not in list(verifiers):  # it may be of any kind that JSON has
            raise ValueError(
                f"row {number} has domain {row.get('domain')!r}, but it must be one of {sorted(verifiers)}."
            )
        try:
            completion_text(row["completion"])
            for verifier, _ in verifiers[row["domain"]]:
                if isinstance(verifier, Verifier):
                    verifier.check_columns(row)
                    verifier.validate_row(row)
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from None
    columns = {name for row in rows for name in row} - {"prompt", "completion"}
    arguments = {name: [row.get(name) for row in rows] for name in sorted(columns)}
    scores: list[dict[str, float | None]] = [{"reward": None} for _ in rows]
    for verifier, weight in (pair for pairs in verifiers.values() for pair in pairs):
        values = verifier(
            prompts=[row.get("prompt", "") for row in rows],
            completions=[row["completion"] for row in rows],
            **arguments,
        )
        if inspect.isawaitable(values):
            values = asyncio.run(_awaited(values))
        for row_scores, value in zip(scores, values, strict=True):
            if value is not None:
                row_scores[verifier.__name__] = value
                row_scores["reward"] = (row_scores["reward"] or 0.0) + weight * value
    return scores


async def _awaited(values: Any) -> list[float | None]:
    return await values


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSONL file.

    Raises:
        ValueError: an unreadable file or line, or one without a completion.
    """
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is not a file.")
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a JSON text may hold what else splitlines() splits at
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error.reason} at byte {error.start}.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error.msg}.") from None
        if not isinstance(row, dict) or "completion" not in row:
            raise ValueError(f"{path}, line {number} has no 'completion', which every line needs.")
        rows.append(row)
    return rows


def write_rows(path: Path, rows: Sequence[Row], scores: Sequence[dict[str, float | None]]) -> None:
    """The rows with their `scores` as a JSONL file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({**row, "scores": s}) for row, s in zip(rows, scores, strict=True)]
    path.write_text("".join(line + "\n" for line in lines))


def summary(rows: Sequence[Row], scores: Sequence[dict[str, float | None]]) -> Table:
    """Mean of every verifier in every domain."""
    table = Table("domain", "verifier", "scored", "mean", "min", "max", title="Rewards")
    for domain in sorted({row["domain"] for row in rows}):
        mine = [s for row, s in zip(rows, scores, strict=True) if row["domain"] == domain]
        for name in sorted({name for s in mine for name in s}, key=lambda name: (name == "reward", name)):
            values = [value for s in mine if (value := s.get(name)) is not None]
            numbers = [f"{f(values):.3f}" for f in (_mean, min, max)] if values else ["-"] * 3
            table.add_row(domain, name, f"{len(values)} of {len(mine)}", *numbers)
    return table


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's error."""
    parser = argparse.ArgumentParser(prog="python -m mgs_trl.score", description="Score completions offline.")
    parser.add_argument("recipe", help="a .yaml file or the name of a shipped recipe")
    parser.add_argument("completions", type=Path, help="JSONL: domain, prompt, completion, and verifiers' columns")
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="hydra overrides of the recipe")
    parser.add_argument("--out", type=Path, help="write the rows with their scores to this JSONL file")
    arguments = parser.parse_intermixed_args(argv)
    try:
        recipe = load_recipe(arguments.recipe, arguments.overrides)
        verifiers = {name: build_verifier(domain.verifier, domain=name) for name, domain in recipe.domains.items()}
        rows = read_rows(arguments.completions)
        scores = score_rows(rows, verifiers)
        if arguments.out is not None:
            write_rows(arguments.out, rows, scores)
    except (ValueError, VerifierError, PoolError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console().print(summary(rows, scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
