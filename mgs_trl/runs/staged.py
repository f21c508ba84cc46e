"""Running a strategy that consists of several runs: stage after stage in these processes, then the policy they make."""

import gc
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

# Before any run: a library keeps the traceback of an optional import that failed, hence the frames of whoever came to
# import it first, and with them the trainer of that run.
import mgs_trl.trainer  # noqa: F401
from mgs_trl.arguments import build_config
from mgs_trl.build import make_output
from mgs_trl.policies.adapter import holds_adapter, remove_adapter
from mgs_trl.policies.saved import config_last, holds_weights, remove_weights
from mgs_trl.ranks.agreement import from_main_process
from mgs_trl.recipe import ModelSpec, Recipe, output_of, write_recipe
from mgs_trl.records.checkpoints import RUN_FILE
from mgs_trl.records.metrics_log import write_launches
from mgs_trl.runs.resumed import warn_of_skipped
from mgs_trl.strategies import strategy_of
from mgs_trl.strategies.merge import fold_adapter, merge_experts
from mgs_trl.strategies.stages import Stage, given_experts, stages_of

FINISHED = "finished"  # empty file in a stage's directory, written last
LOGS = ("metrics.jsonl", "conflicts.jsonl", RUN_FILE, "recipe.yaml", FINISHED)
STAGED = ("sequential", "merge")


class Train(Protocol):
    """Trains a recipe of one run and saves its policy in its output directory. Returns 0, or another code to stop."""

    def __call__(self, recipe: Recipe, first: bool) -> int: ...


def train_strategy(recipe: Recipe, train: Train, resume: bool = False) -> int:
    """Train a recipe, whatever its strategy; its policy is in its output directory afterwards.

    Args:
        train: called for every run that the strategy consists of; `first` says whether it starts from the recipe's
            model and no run before it did.
        resume: leave out the stages that have finished; `train` goes on with the one that was interrupted.

    Returns:
        What `train` returned last.

    Raises:
        ValueError: anything wrong with the recipe, or nothing to resume.
    """
    name, options = strategy_of(recipe)
    if name not in STAGED:
        return train(recipe, True)
    stages, output = stages_of(recipe), output_of(recipe)
    seed = build_config(recipe).seed  # also for its checks, and because it connects the ranks
    done = _on_main_process(lambda: _prepare(recipe, stages, output, resume))
    start = recipe.model
    for number, stage in enumerate(stages):
        stage.recipe.model = start if stage.continues else recipe.model
        if stage.name in done:
            _on_main_process(lambda stage=stage: warn_of_skipped(stage.recipe, stage.output))
        else:
            code = train(stage.recipe, number == 0)
            _free_memory()
            if code:
                return code
            _on_main_process(lambda number=number: _finish(stages[: number + 1], output, name == "sequential"))
        start = _policy_in(stage.output, recipe.model)
    if name == "sequential":
        _on_main_process(lambda: _copy_policy(stages[-1].output, output))
        return 0
    experts = given_experts(recipe) or {d: str(s.output) for d, s in zip(recipe.domains, stages, strict=True)}
    base, how = recipe.model, {name: value for name, value in options.items() if name != "experts"}
    _on_main_process(
        lambda: merge_experts(base.name_or_path, experts, output, seed=seed, revision=base.revision, **how)
    )
    return 0


def _prepare(recipe: Recipe, stages: Sequence[Stage], output: Path, resume: bool) -> list[str]:
    """Names of the stages that need not run again."""
    if resume and stages and not stages[0].output.is_dir():
        others = sorted(path.parent.name for path in output.glob("*/recipe.yaml"))
        there = f"; {', '.join(others)} in it are of another order or strategy" if others else ""
        raise ValueError(f"--resume: there is no stage {stages[0].name!r} in {str(output)!r}{there}.")
    if not resume:
        for stage in stages:
            (stage.output / FINISHED).unlink(missing_ok=True)
            (stage.output / RUN_FILE).unlink(missing_ok=True)  # else its checkpoints would count as this run's
        for name in ("metrics.jsonl", "conflicts.jsonl", RUN_FILE):  # another run's, which a report would take for ours
            (output / name).unlink(missing_ok=True)
    make_output(output)
    write_recipe(recipe, output / "recipe.yaml")
    return [stage.name for stage in stages if (stage.output / FINISHED).is_file()]


def _finish(stages: Sequence[Stage], output: Path, in_sequence: bool) -> None:
    """The last of `stages` has been trained. In a sequence, make its policy whole and add its logs to the others'."""
    stage = stages[-1]
    if in_sequence:
        if holds_adapter(stage.output):
            fold_adapter(stage.output, stage.recipe.model.name_or_path, stage.recipe.model.revision)
        _gather_logs(stages, output)
    if not holds_adapter(stage.output) and not holds_weights(stage.output):
        raise ValueError(f"stage {stage.name!r} has ended, but there is no policy in {str(stage.output)!r}.")
    (stage.output / FINISHED).touch()


def _gather_logs(stages: Sequence[Stage], output: Path) -> None:
    """metrics.jsonl and run.json of all stages, steps counted on from stage to stage."""
    lines: list[dict[str, Any]] = []
    launches: list[dict[str, Any]] = []
    before = 0
    for stage in stages:
        own = [json.loads(line) for line in (stage.output / "metrics.jsonl").read_text().splitlines()]
        lines += [{**line, "step": line["step"] + before, "stage": stage.name} for line in own]
        for launch in json.loads((stage.output / RUN_FILE).read_text())["launches"]:
            launches.append({**launch, "from_step": launch["from_step"] + before, "stage": stage.name})
        before = max((line["step"] for line in lines), default=before)
    (output / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_launches(output, launches)


def _copy_policy(source: Path, target: Path) -> None:
    remove_weights(target)
    for path in config_last(source):
        if path.is_file() and path.name not in LOGS:
            shutil.copy2(path, target)
    remove_adapter(target)


def _policy_in(directory: Path, model: ModelSpec) -> ModelSpec:
    """`model`, loaded as it is, from another place."""
    return ModelSpec(**{**vars(model), "name_or_path": str(directory), "revision": None})


def _free_memory() -> None:
    """What the run before held, its vLLM included, goes before the next one needs the room."""
    unset_hf_deepspeed_config()  # else transformers would load models in pieces on all ranks, between stages too
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _on_main_process(act: Callable[[], Any]) -> Any:
    return from_main_process(PartialState(), act)
