"""Train a recipe: `accelerate launch -m mgs_trl.train RECIPE [key=value ...] [--check] [--resume [DIR]]`."""

import argparse
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mgs_trl.recipe import Recipe, load_recipe, recipe_yaml, shipped_recipes


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 2 after a user's error, 128 + signal after an interruption."""
    arguments = _parse(argv)
    try:
        recipe = load_recipe(arguments.recipe, arguments.overrides)
        if arguments.check:
            return _check(recipe, arguments.ranks)
        return _train(recipe, arguments)
    except (ValueError, RuntimeError) as error:
        if arguments.traceback or not _is_users(error):
            raise
        if _is_first_rank():
            bar = "\n" if arguments.training else ""  # the progress bar has not ended its line
            print(f"{bar}error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before training began; nothing was saved.", file=sys.stderr)
        return 128 + signal.SIGINT


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="accelerate launch -m mgs_trl.train", description="Train a policy on several domains at once."
    )
    parser.add_argument("recipe", help=f"a .yaml file, or one of: {', '.join(shipped_recipes())}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="hydra overrides of the recipe")
    parser.add_argument("--check", action="store_true", help="check the recipe and print the plan; do not train")
    parser.add_argument("--ranks", type=int, help="with --check: data-parallel ranks to plan for")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="last",
        metavar="CHECKPOINT",
        help="go on from a checkpoint (default: the last)",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    arguments = parser.parse_intermixed_args(argv)
    arguments.training = False
    if arguments.resume and "=" in arguments.resume and not Path(arguments.resume).exists():
        arguments.overrides.append(arguments.resume)  # `--resume key=value` names no checkpoint
        arguments.resume = "last"
    return arguments


def _check(recipe: Recipe, ranks: int | None) -> int:
    if not _is_first_rank():
        return 0
    from mgs_trl.check import check, print_plan

    print_plan(check(recipe, ranks), Console())
    return 0


def _train(recipe: Recipe, arguments: argparse.Namespace) -> int:
    from transformers.trainer_callback import ProgressCallback

    from mgs_trl.build import build_trainer
    from mgs_trl.interrupt import StopOnSignal
    from mgs_trl.progress import ProgressLine
    from mgs_trl.summary import closing_tables

    stop = StopOnSignal()
    heldout = any(domain.eval_dataset for domain in recipe.domains.values())
    trainer = build_trainer(recipe, [stop], **({"eval_on_start": True} if heldout and not arguments.resume else {}))
    if not trainer.args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(ProgressLine())
    output = Path(str(trainer.args.output_dir))
    checkpoint = _checkpoint(arguments.resume, output)
    if trainer.is_world_process_zero():
        output.mkdir(parents=True, exist_ok=True)
        (output / "recipe.yaml").write_text(recipe_yaml(recipe))
    arguments.training = True
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        stop.restore()
    if stop.received:
        if trainer.is_world_process_zero():
            again = shlex.join([arguments.recipe, *arguments.overrides])
            print(
                f"stopped after step {trainer.state.global_step}; resume with: "
                f"accelerate launch -m mgs_trl.train {again} --resume",
                file=sys.stderr,
            )
        return 128 + stop.received
    if heldout:
        trainer.evaluate()
    trainer.save_model()
    if trainer.is_world_process_zero():
        for table in closing_tables(trainer.state.log_history):
            Console().print(table)
    return 0


def _checkpoint(resume: str | None, output: Path) -> str | None:
    """The checkpoint directory that `--resume` means; None without it.

    Raises:
        ValueError: there is no such checkpoint.
    """
    if resume is None:
        return None
    if resume != "last":
        if not Path(resume).is_dir():
            raise ValueError(f"--resume: checkpoint {resume!r} is not a directory.")
        return resume
    from transformers.trainer_utils import get_last_checkpoint

    last = get_last_checkpoint(str(output)) if output.is_dir() else None
    if last is None:
        raise ValueError(f"--resume: there is no checkpoint in {str(output)!r}.")
    return last


def _is_users(error: BaseException) -> bool:
    """Whether an error was raised in this package: those speak to the user; others need their traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    sys.exit(main())
