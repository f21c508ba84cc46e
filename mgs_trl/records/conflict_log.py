"""conflicts.jsonl: the Gramians and weights of every module, from which the report is drawn."""

import json
from pathlib import Path

from mgs_trl.surgery import ConflictReport


class ConflictLog:
    """Appends a line per logged step.

    A new run starts the file anew; a resumed one first drops the lines of steps that will be done again.

    Args:
        path: the file; its folder is made.
        every: optimizer steps between lines; 0 writes nothing.
    """

    def __init__(self, path: Path, every: int):
        self.path = path
        self.every = every
        self._done: int | None = None  # the last step

    def write(self, report: ConflictReport) -> None:
        if self.every == 0:
            return
        if self._done is None or report.step <= self._done:  # the trainer may have been resumed in this process
            self._keep_lines_before(report.step)
        self._done = report.step
        if report.step % self.every == 0:
            with self.path.open("a") as file:
                file.write(json.dumps(report.to_json()) + "\n")

    def _keep_lines_before(self, step: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if (done := _step_of(line)) is not None and done < step]
        self.path.write_text("".join(line + "\n" for line in kept))


def _step_of(line: str) -> int | None:
    """None for a line that a crash cut off."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
