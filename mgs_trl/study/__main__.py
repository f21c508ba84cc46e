"""`python -m mgs_trl.study RECIPE [key=value ...]`: train every strategy of a study and compare them."""

import argparse
import csv
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from mgs_trl.recipe import Recipe, StudySpec, did_you_mean, find_recipe, load_recipe, output_of, write_recipe
from mgs_trl.strategies import OPTIONS, STRATEGIES, Options, strategy_of
from mgs_trl.study.plan import RECIPE, RESULT, Run, plan_runs
from mgs_trl.study.results import Results, missing, read_result
from mgs_trl.study.schedule import Schedule
from mgs_trl.study.table import grids, write_csv
from mgs_trl.study.workers import work_off

TARGET = "mgs_trl.study.job:execute"
SHORT = ("seeds", "strategies", "workers")  # overrides that may go without `study.`


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0, 1 if a run failed, 2 after a user's error, 128 + signal after an interruption."""
    arguments = _parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a study that is stopped ends its workers
    try:
        recipe, overrides = load_study(arguments.recipe, arguments.overrides)
        root = output_of(recipe, "outputs/study")
        if (root / "metrics.jsonl").exists():
            raise ValueError(
                f"trainer.output_dir is {str(root)!r}, which holds a run of its own; give the study another."
            )
        runs = plan_runs(recipe, overrides, root.absolute())
        done = finished(runs)
        if not arguments.table:
            from mgs_trl.build import make_output

            check_runs(arguments.recipe, [run for run in runs if run.name not in done])
            make_output(root)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    assert recipe.study is not None
    console = Console() if sys.stdout.isatty() else Console(width=200)
    schedule = Schedule(runs, done)
    failed: dict[str, str] = schedule.failed
    code = 0
    if schedule.left and not arguments.table:
        from mgs_trl.records.metrics_log import COMMAND

        write_recipe(recipe, root / "study.yaml")
        os.environ[RECIPE] = str(find_recipe(arguments.recipe))
        os.environ[COMMAND] = shlex.join(["python", "-m", "mgs_trl.study", arguments.recipe, *arguments.overrides])
        record_start(root / "study.json", anew=not done)
        try:
            work_off(schedule, TARGET, environments(recipe.study.workers), Progress(console, len(runs), schedule))
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the finished runs.", file=sys.stderr)
            code = 128 + signal.SIGINT
    show(recipe.study, runs, failed, root, console)
    return code or int(bool(failed))


def load_study(recipe: str, overrides: Sequence[str]) -> tuple[Recipe, list[str]]:
    """A recipe with the study that the command line asks for, and the overrides that its runs get.

    Raises:
        ValueError: anything wrong with the recipe, or a strategy that the study does not have.
    """
    own, selected, kept = [], None, []
    for text in overrides:
        key, _, value = text.partition("=")
        if key in ("strategies", "study.strategies") and value.startswith("["):
            selected = [name.strip() for name in value.strip("[]").split(",") if name.strip()]
        elif key in SHORT or key.lstrip("~+").startswith("study."):
            own.append(f"study.{text}" if key in SHORT else text)
        else:
            kept.append(text)
    loaded = load_recipe(recipe, [*kept, *own])
    if selected is not None:
        loaded.study = select(loaded.study or StudySpec(), selected)
    elif loaded.study is None:
        raise ValueError(f"recipe {recipe!r} has no key study; give it one, or say strategies=[mixed,mgs,...].")
    return loaded, kept


def select(study: StudySpec, names: Sequence[str]) -> StudySpec:
    """The study with these strategies only: its own, and those that are known by name and need no options.

    Raises:
        ValueError: a name that is neither.
    """
    plain = {name: [f"strategy={name}"] for name in STRATEGIES if not OPTIONS.get(name, Options()).one_of}
    known = {**plain, **study.strategies}
    for name in names:
        if name not in known:
            raise ValueError(
                f"strategies has {name!r}, but it must be of {', '.join(known)}." + did_you_mean(name, known)
            )
    study.strategies = {name: known[name] for name in names}
    study.only = {name: regimes for name, regimes in study.only.items() if name in names}
    study.contrasts = [pair for pair in study.contrasts if set(pair) <= set(names)]
    study.sequences = [sequence for sequence in study.sequences if set(sequence.values()) <= set(names)]
    return study


def check_runs(recipe: str, runs: Sequence[Run]) -> None:
    """Load what every strategy trains, and what every regime and checkpoint is evaluated on, before any of it runs.

    Raises:
        ValueError: an override that does not fit, a strategy or setting that no run could have, or a domain without
            held-out prompts.
    """
    trained = {(run.regime, run.strategy): run.training for run in reversed(runs) if run.training}
    for (regime, strategy), training in trained.items():
        try:
            check_settings(load_recipe(recipe, training))
        except ValueError as error:
            raise ValueError(f"strategy {strategy!r} in regime {regime!r}: {error}") from error
    evaluated = {(run.regime, run.checkpoint): run.evaluation for run in reversed(runs)}
    for evaluation in evaluated.values():
        domains = load_recipe(recipe, evaluation).domains
        if without := [name for name, domain in domains.items() if domain.eval_dataset is None]:
            raise ValueError(f"domains.{without[0]} has no eval_dataset, but a study evaluates every domain.")


def check_settings(recipe: Recipe) -> None:
    """Build a run's configuration, as far as it can be without the runs that it builds on.

    Raises:
        ValueError: as `build_config`, or weights and quotas that do not fit the domains.
    """
    from mgs_trl.arguments import build_config, domains_with_rows
    from mgs_trl.build import check_quotas
    from mgs_trl.config import mapping
    from mgs_trl.rollouts.sampling import parse_sampling
    from mgs_trl.training.mix import domain_factors

    name, options = strategy_of(recipe)
    if name == "fixed_weights" and "from" in options:  # weights of a run to come
        recipe = replace(recipe, strategy={name: {"weights": dict.fromkeys(recipe.domains, 1.0)}})
    trainer = {**recipe.trainer, "use_cpu": True}  # this process leaves the GPUs to the workers
    config = build_config(replace(recipe, trainer=trainer), ranks=1)
    parse_sampling(config).among(domains_with_rows(recipe))
    domains = sorted(check_quotas(recipe, config))
    if len(domains) > 1:
        domain_factors(mapping(config.domain_weights), domains)


def finished(runs: Sequence[Run]) -> list[str]:
    """Names of the runs that have a result.

    Raises:
        ValueError: a result is of a run with other settings.
    """
    names = []
    for run in runs:
        if run.finished:
            settings = json.loads((run.directory / RESULT).read_text())["settings"]
            if settings != run.settings:
                raise ValueError(
                    f"{run.directory} holds a result of other settings; give another trainer.output_dir or remove it."
                )
            names.append(run.name)
    return names


def record_start(path: Path, anew: bool) -> None:
    """Add this start to those of the study, or begin their list anew."""
    from mgs_trl.records.metrics_log import describe_start

    earlier = json.loads(path.read_text())["launches"] if path.is_file() and not anew else []
    path.write_text(json.dumps({"launches": [*earlier, describe_start()]}, indent=1))


def environments(workers: int | None) -> list[dict[str, str]]:
    """What sets the workers apart: each has a GPU to itself, or a core where there is none."""
    from torch.cuda import device_count

    gpus = device_count()
    common = {"TOKENIZERS_PARALLELISM": "false"}
    count = workers or gpus or len(os.sched_getaffinity(0))
    if gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        return [{**common, "CUDA_VISIBLE_DEVICES": visible[i % gpus]} for i in range(count)]
    return [{**common, "OMP_NUM_THREADS": "1"} for _ in range(count)]


class Progress:
    """Prints a line after each run."""

    def __init__(self, console: Console, total: int, schedule: Schedule):
        self._console, self._total, self._schedule = console, total, schedule
        self._started, self._before = time.monotonic(), len(schedule.finished)

    def __call__(self, run: Run, reason: str | None) -> None:
        done = len(self._schedule.finished)
        passed = time.monotonic() - self._started
        left = passed / max(done - self._before, 1) * self._schedule.left
        state = "done" if reason is None else f"FAILED: {reason}"
        self._console.print(
            f"{done}/{self._total} {run.name} {state} ({passed / 60:.1f} min, about {left / 60:.0f} min left)",
            highlight=False,
            markup=False,
        )


def show(study: StudySpec, runs: Sequence[Run], failed: dict[str, str], root: Path, console: Console) -> None:
    """Print the tables of the finished runs, and write them beside the runs: study.md, study.csv, scores.csv."""
    results = Results([read_result(run) for run in runs if run.finished], study)
    if not results.all:
        console.print("No run has finished.")
        return
    tables = grids(results, missing(runs, failed))
    for table in tables:
        console.print(table.rich())
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    head = f"{len(results.all)} of {len(runs)} runs, {day}. Scores are mean ± standard error over seeds.\n"
    (root / "study.md").write_text("\n".join([head, *(table.markdown() for table in tables)]))
    write_csv(results, root / "study.csv")
    with (root / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("regime", "strategy", "seed", "checkpoint", "domain", "score"))
        for result in results.all:
            for domain, score in result.scores.items():
                writer.writerow((result.regime, result.strategy, result.seed, result.checkpoint, domain, score))
    console.print(f"written: {root / 'study.md'}, study.csv, scores.csv", highlight=False)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mgs_trl.study",
        description="Train every strategy of a study with the same seeds, and compare them on held-out prompts.",
    )
    parser.add_argument("recipe", help="a .yaml file or the name of a shipped recipe")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="hydra overrides; also seeds=5 strategies=[a,b] workers=2",
    )
    parser.add_argument("--table", action="store_true", help="train nothing; print the tables of the finished runs")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    sys.exit(main())
