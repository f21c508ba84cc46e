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
    if not output.is_dir():
        return None
    numbered = [(int(m[1]), path) for path in output.iterdir() if (m := _CHECKPOINT.fullmatch(path.name))]
    own = read_run_id(output)
    return next((path for _, path in sorted(numbered, reverse=True) if _id_of(path) == own), None)


def read_run_id(output: Path) -> str | None:
    """Of the run whose run.json lies in `output`; None without one."""
    try:
        return json.loads((output / RUN_FILE).read_text()).get(RUN_ID)
    except (OSError, ValueError, AttributeError):
        return None


def _id_of(checkpoint: Path) -> str | None:
    path = checkpoint / RUN_ID
    return path.read_text() if path.is_file() else None
