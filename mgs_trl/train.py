"""Train a recipe: `accelerate launch -m mgs_trl.train RECIPE [key=value ...] [--check] [--resume [DIR]]`."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mgs_trl.blame import is_ours
from mgs_trl.recipe import Recipe, load_recipe, shipped_recipes


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 2 after a user's error, 128 + signal after an interruption."""
    arguments = _parse(argv)
    training = False
    try:
        recipe = load_recipe(arguments.recipe, arguments.overrides)
        _check_command()
        if arguments.check:
            return _check(recipe, arguments.ranks)
        from mgs_trl.runs.run import Command, train

        training = True
        return train(recipe, Command(_again(arguments), arguments.resume))
    except (ValueError, RuntimeError, ImportError) as error:
        if arguments.traceback or not _is_users(error):
            raise
        if _is_first_rank() or os.environ.get("LOCAL_RANK") == "0":  # another node's files are its own
            bar = "\n" if training else ""  # a progress bar has perhaps not ended its line
            whose = "" if _is_first_rank() else f"rank {os.environ['RANK']}: "
            print(f"{bar}{whose}error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted outside of training; what had been saved before is all there is.", file=sys.stderr)
        return 128 + signal.SIGINT


def _check_command() -> None:
    """Raises ValueError if the launcher did less than its command line asks for."""
    from mgs_trl.ranks.layout import check_processes
    from mgs_trl.records.metrics_log import launch_command

    check_processes(launch_command())


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="accelerate launch -m mgs_trl.train", description="Train a policy on several domains at once."
    )
    parser.add_argument("recipe", help=f"a .yaml file, or one of: {', '.join(shipped_recipes())}")
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="hydra overrides of the recipe")
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
    if arguments.ranks is not None and arguments.ranks < 1:
        parser.error(f"--ranks is {arguments.ranks}, but it must be at least 1")
    if arguments.ranks is not None and not arguments.check:
        parser.error(f"--ranks is {arguments.ranks} without --check, but a training has the ranks of its launch")
    if arguments.resume and "=" in arguments.resume and not Path(arguments.resume).exists():
        arguments.overrides.append(arguments.resume)  # `--resume key=value` names no checkpoint
        arguments.resume = "last"
    return arguments


def _again(arguments: argparse.Namespace) -> str:
    """The command line that goes on with this run: as it was started, with as many processes."""
    from mgs_trl.records.metrics_log import launch_command

    words = shlex.split(launch_command())
    if arguments.recipe not in words:  # `main` was called by another program
        words = ["accelerate", "launch", "-m", "mgs_trl.train", arguments.recipe, *arguments.overrides]
    elsewhere = ("--resume", f"--resume={arguments.resume}", arguments.resume)
    return shlex.join([*(word for word in words if word not in elsewhere), "--resume"])


def _check(recipe: Recipe, ranks: int | None) -> int:
    if not _is_first_rank():
        return 0
    from mgs_trl.check import check, print_plan
    from mgs_trl.strategies.stages import stages_of

    console = Console()
    ranks = ranks or int(os.environ.get("WORLD_SIZE", "1"))
    stages = stages_of(recipe)
    for stage in stages:
        console.rule(stage.name)
        print_plan(check(stage.recipe, ranks), console)
    if not stages:
        print_plan(check(recipe, ranks), console)
    return 0


def _is_users(error: BaseException) -> bool:
    """Whether an error was raised in this package, or asks for a package that an option needs: those speak to the
    user; others need their traceback."""
    if isinstance(error, ImportError):
        return not str(error).startswith("cannot import name")
    return is_ours(error)


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    sys.exit(main())
