"""What a run left in OUTPUT_DIR, whole or not: its log, its recipe, how it was started."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

METRICS, CONFLICTS, RECIPE, LAUNCHES = "metrics.jsonl", "conflicts.jsonl", "recipe.yaml", "run.json"
LABELS = ("step", "stage")  # keys of a log that are not metrics


@dataclass
class RunFiles:
    """One OUTPUT_DIR.

    Attributes:
        name: short and unique among the runs of a report.
        history: one mapping per log, each with `step`; in order of steps.
        source: the file the history was read from; None without one.
        conflicts: the conflict log; None without one.
        recipe: the resolved recipe; empty without one.
        launches: how the run was started and resumed (`mgs_trl.records.metrics_log`).
        max_steps: planned optimizer steps; None if not known.
        notes: what is missing or damaged, in sentences.
    """

    path: Path
    name: str
    history: list[dict[str, Any]] = field(default_factory=list)
    source: Path | None = None
    conflicts: Path | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    launches: list[dict[str, Any]] = field(default_factory=list)
    max_steps: int | None = None
    notes: list[str] = field(default_factory=list)

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps and finite values of a metric, in order; of two logs at one step the later."""
        values = {}
        for entry in self.history:
            value = entry.get(metric)
            if isinstance(value, int | float) and math.isfinite(value):
                values[entry["step"]] = float(value)
        steps = sorted(values)
        return steps, [values[step] for step in steps]

    def metrics(self) -> list[str]:
        """Names of everything that was logged."""
        return sorted({key for entry in self.history for key in entry} - set(LABELS))

    @property
    def strategy(self) -> str:
        """Its name in the recipe, of several all; empty without one."""
        strategy = self.recipe.get("strategy") or ""
        return ", ".join(map(str, strategy)) if isinstance(strategy, Mapping) else str(strategy)

    @property
    def stages(self) -> list[tuple[str, int]]:
        """Stages of a sequence in their order, each with the last step before it; empty for any other run."""
        last: dict[str, int] = {}
        for entry in self.history:
            if isinstance(stage := entry.get("stage"), str):
                last[stage] = entry["step"]
        return list(zip(last, [0, *last.values()], strict=False))

    @property
    def stages_planned(self) -> int:
        """How many stages the recipe names; 0 if it names none."""
        strategy = self.recipe.get("strategy")
        options = strategy.get("sequential") if isinstance(strategy, Mapping) else None
        order = options.get("order") if isinstance(options, Mapping) else None
        return len(order) if isinstance(order, list) else 0

    @property
    def last_step(self) -> int:
        return max((entry["step"] for entry in self.history), default=0)

    @property
    def finished(self) -> bool:
        """Whether the trainer logged the end of training, and none went on after it."""
        return any("train_runtime" in entry and entry["step"] == self.last_step for entry in self.history)


def read_runs(directories: Sequence[Path]) -> list[RunFiles]:
    """Read every OUTPUT_DIR.

    Raises:
        ValueError: a directory that does not exist, is given twice, or holds nothing that a run leaves.
    """
    resolved = [directory.resolve() for directory in directories]
    for directory, path in zip(directories, resolved, strict=True):
        if not path.is_dir():
            raise ValueError(f"OUTPUT_DIR {str(directory)!r} is not a directory.")
        if resolved.count(path) > 1:
            raise ValueError(f"OUTPUT_DIR {str(directory)!r} is given twice.")
    return [_read(path, name) for path, name in zip(resolved, short_names(resolved), strict=True)]


def short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def json_lines(path: Path, notes: list[str]) -> Iterator[Any]:
    """Values of a JSONL file, one by one. Lines that are not JSON are left out; `notes` gets a sentence about them."""
    damaged, last_is_damaged = 0, False
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            last_is_damaged = False
            try:
                yield json.loads(line)
            except ValueError:
                damaged, last_is_damaged = damaged + 1, True
    if damaged == 1 and last_is_damaged:
        notes.append(f"The last line of {path.name} is cut off, as a crash leaves it; it is left out.")
    elif damaged:
        notes.append(f"{damaged} lines of {path.name} are not JSON; they are left out.")


def _read(path: Path, name: str) -> RunFiles:
    run = RunFiles(path, name)
    _read_history(run)
    conflicts = path / CONFLICTS
    if conflicts.is_file() and conflicts.stat().st_size:
        run.conflicts = conflicts
    else:
        run.notes.append(
            f"There is no {CONFLICTS}: a run of one domain, with surgery off, with conflict_log_steps 0, or of another "
            "trainer. Nothing can be said per module."
        )
    _read_recipe(run)
    _read_launches(run)
    if (path / "study.yaml").is_file():
        raise ValueError(
            f"OUTPUT_DIR {str(path)!r} holds a study that has written no table yet; python -m mgs_trl.study RECIPE "
            "--table writes it from the runs that have finished."
        )
    if run.source is None and run.conflicts is None and not run.recipe and not run.launches:
        raise ValueError(
            f"OUTPUT_DIR {str(path)!r} holds none of {METRICS}, {CONFLICTS}, {RECIPE}, {LAUNCHES}, trainer_state.json "
            "and checkpoint-*/trainer_state.json, but a report needs at least one of them."
        )
    planned = [run.max_steps, (run.recipe.get("trainer") or {}).get("max_steps")]
    planned += [launch.get("max_steps") for launch in run.launches[-1:]]
    if not run.stages:  # in a sequence, recipe and launches name the steps of one stage
        run.max_steps = next((steps for steps in planned if isinstance(steps, int) and steps > 0), None)
    return run


def _read_history(run: RunFiles) -> None:
    path = run.path / METRICS
    if path.is_file():
        entries: Any = json_lines(path, run.notes)
        run.source = path
    else:
        state = _newest_state(run)
        if state is None:
            run.notes.append(
                f"There is neither {METRICS} nor a trainer_state.json: no rewards, entropies, lengths or evaluations."
            )
            return
        entries = state.get("log_history")
        run.max_steps = state.get("max_steps")
    if not isinstance(entries, Iterator | list):
        entries = []
    valid = [e for e in entries if isinstance(e, dict) and isinstance(e.get("step"), int)]
    if not valid:
        run.notes.append(f"{run.source and run.source.name} holds no log yet.")
    run.history = sorted(valid, key=lambda entry: entry["step"])


def _newest_state(run: RunFiles) -> dict[str, Any] | None:
    """trainer_state.json of the output directory itself or of its newest readable checkpoint."""
    numbered = [(int(m[1]), p) for p in run.path.glob("checkpoint-*") if (m := re.search(r"-(\d+)$", p.name))]
    folders = [run.path, *(path for _, path in sorted(numbered, reverse=True))]
    for path in (folder / "trainer_state.json" for folder in folders):
        if not path.is_file():
            continue
        try:
            state = json.loads(path.read_bytes())
        except ValueError:
            state = None
        if isinstance(state, dict):
            run.source = path
            if path.parent != run.path:
                run.notes.append(f"There is no {METRICS}; the log is that of {path.parent.name} and ends with it.")
            return state
        run.notes.append(f"{path.relative_to(run.path)} is not JSON; it is left out.")
    return None


def _read_recipe(run: RunFiles) -> None:
    path = run.path / RECIPE
    if not path.is_file():
        run.notes.append(f"There is no {RECIPE}: the run was not started by mgs_trl.train.")
        return
    try:
        recipe = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError):
        recipe = None
    if isinstance(recipe, Mapping):
        run.recipe = {str(key): value for key, value in recipe.items()}
    else:
        run.notes.append(f"{RECIPE} is not a YAML mapping; it is left out.")


def _read_launches(run: RunFiles) -> None:
    path = run.path / LAUNCHES
    if not path.is_file():
        run.notes.append(f"There is no {LAUNCHES}: commands and versions of the run are not known.")
        return
    try:
        launches = json.loads(path.read_bytes())["launches"]
        run.launches = [launch for launch in launches if isinstance(launch, dict)]
    except (ValueError, KeyError, TypeError):
        run.notes.append(f"{LAUNCHES} is damaged; it is left out.")
