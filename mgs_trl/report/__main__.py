"""The command: `python -m mgs_trl.report OUTPUT_DIR [OUTPUT_DIR ...] [--out FILE]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mgs_trl.report.page import write_report


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report; returns the exit code: 0, or 2 after a user's error."""
    parser = argparse.ArgumentParser(
        prog="python -m mgs_trl.report", description="One HTML file about one or several multi-domain runs."
    )
    parser.add_argument("output_dirs", nargs="+", type=Path, metavar="OUTPUT_DIR", help="what a run wrote to")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: report.html in OUTPUT_DIR, or in the current directory for several",
    )
    arguments = parser.parse_args(argv)
    several = len(arguments.output_dirs) > 1
    out = arguments.out or (Path() if several else arguments.output_dirs[0]) / "report.html"
    try:
        notes = write_report(arguments.output_dirs, out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
