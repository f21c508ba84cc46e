"""Which checkpoints in an output directory are those of the run whose logs lie there."""

import json
import re
from pathlib import Path

RUN_FILE = "run.json"
RUN_ID = "run_id"  # key in run.json, and name of the file in a checkpoint that repeats its value
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def last_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint of the run that `output` holds; None without one.

    Checkpoints that an earlier run left in the same directory are another run's, however high their number.
    """
    own = read_run_id(output)
    return next((path for _, path in reversed(_numbered(output)) if _id_of(path) == own), None)


def disown_later(output: Path, step: int) -> None:
    """The run that `output` holds goes on from `step`: what it had saved of later steps, before it took this way, is
    another run's from now on."""
    own = read_run_id(output)
    for number, path in _numbered(output):
        if number > step and own is not None and _id_of(path) == own:
            (path / RUN_ID).unlink()


def read_run_id(output: Path) -> str | None:
    """Of the run whose run.json lies in `output`; None without one."""
    try:
        return json.loads((output / RUN_FILE).read_text()).get(RUN_ID)
    except (OSError, ValueError, AttributeError):
        return None


def _numbered(output: Path) -> list[tuple[int, Path]]:
    """Every checkpoint with its step, in their order."""
    found = output.iterdir() if output.is_dir() else ()
    return sorted((int(m[1]), path) for path in found if (m := _CHECKPOINT.fullmatch(path.name)))


def _id_of(checkpoint: Path) -> str | None:
    path = checkpoint / RUN_ID
    return path.read_text() if path.is_file() else None
