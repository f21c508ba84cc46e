"""`python -m mgs_trl.study.miniature`: build the miniature, or find it built, and print what it is."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from mgs_trl.study.miniature.build import build_miniature


def main(arguments: list[str] | None = None) -> int:
    """Build the miniature as the command line says and print its directory and base success rates."""
    parser = argparse.ArgumentParser(prog="python -m mgs_trl.study.miniature", description=__doc__)
    parser.add_argument("--dir", help="where to build (default: $MGS_TRL_CACHE or ~/.cache/mgs_trl, and its name)")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and weights (default 0)")
    parser.add_argument("--size", choices=("full", "small"), default="full", help="small: for studies of many runs")
    parser.add_argument("--force", action="store_true", help="build anew even if it is there")
    options = parser.parse_args(arguments)
    try:
        directory = build_miniature(options.dir, seed=options.seed, force=options.force, size=options.size)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(json.loads((directory / "manifest.json").read_text()))
    print(directory)
    return 0


def show(manifest: dict[str, Any]) -> None:
    """Print a manifest's base success rates as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Miniature, seed {manifest['seed']}: before reinforcement", title_justify="left")
    for heading in ("domain", "success", "mean score", "train", "held-out"):
        table.add_column(heading, justify="left" if heading == "domain" else "right")
    for domain, rate in manifest["success_rate"].items():
        counts = manifest["prompts"][domain]
        mean = manifest["mean_score"][domain]
        table.add_row(domain, f"{rate:.0%}", f"{mean:.2f}", str(counts["train"]), str(counts["heldout"]))
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
