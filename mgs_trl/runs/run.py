"""What the training command does with a recipe: one run, or the runs that its strategy consists of."""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelerate import PartialState
from rich.console import Console
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ProgressCallback

from mgs_trl.blame import refused
from mgs_trl.build import build_trainer, release, save_policy
from mgs_trl.policies.adapter import holds_adapter
from mgs_trl.policies.saved import holds_weights
from mgs_trl.recipe import Recipe, output_of, write_recipe
from mgs_trl.records.checkpoints import last_checkpoint
from mgs_trl.records.metrics_log import describe_launch, write_launches
from mgs_trl.runs.interrupt import StopOnSignal
from mgs_trl.runs.progress import ProgressLine
from mgs_trl.runs.resumed import warn_of_changes
from mgs_trl.runs.staged import STAGED, train_strategy
from mgs_trl.runs.summary import closing_tables, read_log
from mgs_trl.runs.trackers import open_trackers, tracked, tracked_as
from mgs_trl.strategies import strategy_of


@dataclass
class Command:
    """How the command was given.

    Attributes:
        again: the command line that goes on with this run if it is interrupted.
        resume: a checkpoint's directory, `last`, or None for a new run.
    """

    again: str
    resume: str | None = None


def train(recipe: Recipe, command: Command) -> int:
    """Train a recipe, evaluate it on its held-out data and print what came of it.

    Returns:
        0, or 128 + the signal that interrupted it.

    Raises:
        ValueError: anything wrong with the recipe, its data, or the checkpoint to resume.
    """
    name, _ = strategy_of(recipe)
    if name in STAGED and command.resume not in (None, "last"):
        raise ValueError(
            f"--resume names the checkpoint {command.resume!r}, but strategy {name!r} goes on with the stage that was "
            "interrupted; give --resume alone."
        )
    one_run = partial(_train_run, command=command, staged=name in STAGED)
    code = train_strategy(recipe, one_run, resume=command.resume is not None)
    if code:
        return code
    if name == "merge":
        _evaluate_merged(recipe)
    if PartialState().is_main_process:
        for table in closing_tables(read_log(output_of(recipe))):
            Console().print(table)
    return 0


def _train_run(recipe: Recipe, first: bool, command: Command, staged: bool) -> int:
    """One run. A stage that was not begun has no checkpoint to resume."""
    stop = StopOnSignal()
    heldout = any(domain.eval_dataset for domain in recipe.domains.values())
    output = output_of(recipe)
    checkpoint = _checkpoint(command.resume, output, may_lack=staged)
    _check_form(checkpoint, recipe)
    look_first = heldout and first and checkpoint is None and recipe.trainer.get("eval_on_start") is not False
    trainer = build_trainer(recipe, [stop], **({"eval_on_start": True} if look_first else {}))
    if not trainer.args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(ProgressLine())
    if trainer.is_world_process_zero():
        output.mkdir(parents=True, exist_ok=True)
        warn_of_changes(recipe, checkpoint)
        write_recipe(recipe, output / "recipe.yaml")
    with tracked(trainer):
        try:
            with refused("training cannot begin", (ValueError,), lambda: not stop.stepped):
                trainer.train(resume_from_checkpoint=checkpoint)
        finally:
            stop.restore()
        if stop.received:
            if trainer.is_world_process_zero():
                done = f"stopped after step {trainer.state.global_step}"
                print(f"{done}; resume with: {command.again}", file=sys.stderr)
            return 128 + stop.received
        save_policy(trainer)  # first: an evaluation that fails must not cost the training
        if heldout:
            trainer.evaluate()
    release(trainer)
    return 0


def _evaluate_merged(recipe: Recipe) -> None:
    """Held-out rewards of a policy that no run of its own has trained, and how it came to be."""
    output = output_of(recipe)
    model = replace(recipe.model, name_or_path=str(output), revision=None)
    name = tracked_as(recipe.trainer.get("run_name"), output, "merged")
    merged = replace(recipe, model=model, peft=None, trainer={**recipe.trainer, "run_name": name})
    trainer = build_trainer(merged)
    if trainer.is_world_process_zero():
        (output / "metrics.jsonl").unlink(missing_ok=True)
        write_launches(output, [describe_launch(trainer.args, 0, 0)])
    if trainer.eval_dataset is not None:
        # DeepSpeed only takes models to evaluate that it shards, and here nothing has been trained.
        trainer.is_deepspeed_enabled = trainer.is_deepspeed_enabled and is_deepspeed_zero3_enabled()
        with tracked(trainer):
            open_trackers(trainer)
            trainer.evaluate()
    release(trainer)


def _checkpoint(resume: str | None, output: Path, may_lack: bool) -> str | None:
    """The checkpoint directory that `resume` means; None without it, or where there `may_lack` one.

    Raises:
        ValueError: there is no such checkpoint.
    """
    if resume is None:
        return None
    if resume != "last":
        if not (Path(resume) / TRAINER_STATE_NAME).is_file():
            raise ValueError(f"--resume: {resume!r} is no checkpoint, a directory with {TRAINER_STATE_NAME}.")
        return resume
    last = last_checkpoint(output)
    if last is None and not may_lack:
        others = "; those in it are an earlier run's, which --resume DIR can name" if _has_checkpoints(output) else ""
        raise ValueError(f"--resume: there is no checkpoint of this run in {str(output)!r}{others}.")
    return None if last is None else str(last)


def _check_form(checkpoint: str | None, recipe: Recipe) -> None:
    """Raises ValueError if a checkpoint is of an adapter and the recipe trains the whole policy, or the reverse."""
    if checkpoint is None:
        return
    adapter = holds_adapter(Path(checkpoint))  # a checkpoint of FSDP's shards has neither
    if recipe.peft is None and adapter:
        raise ValueError(f"--resume: the checkpoint {checkpoint!r} is of an adapter, but the recipe has no peft.")
    if recipe.peft is not None and not adapter and holds_weights(Path(checkpoint)):
        raise ValueError(f"--resume: the checkpoint {checkpoint!r} is of a whole policy, but the recipe has peft.")


def _has_checkpoints(output: Path) -> bool:
    return any(output.glob("checkpoint-*"))
