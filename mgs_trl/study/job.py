"""One run of a study, in a worker: train, then evaluate what came of it on the held-out prompts of every domain."""

import json
import os
import re
import shutil
import time
from typing import Any

from mgs_trl.build import build_trainer, release, save_policy
from mgs_trl.policies.adapter import holds_adapter
from mgs_trl.recipe import Recipe, load_recipe, output_of, write_recipe
from mgs_trl.runs.staged import train_strategy
from mgs_trl.runs.trackers import open_trackers, tracked
from mgs_trl.strategies.merge import fold_adapter
from mgs_trl.study.plan import RECIPE, RESULT, Run

ONE_PROCESS: dict[str, Any] = {"vllm_tensor_parallel_size": 1}  # whatever the recipe says: a worker is the only rank
_SCORE = re.compile(r"eval_domain/(.+)/reward")


def execute(run: Run) -> None:
    """Do `run` and leave its result; whatever an interrupted attempt left is removed first."""
    shutil.rmtree(run.directory, ignore_errors=True)
    run.directory.mkdir(parents=True)
    file = os.environ[RECIPE]
    started = time.perf_counter()
    if run.training:
        train_strategy(load_recipe(file, run.training), train)
    trained = time.perf_counter()
    scores = evaluate(load_recipe(file, run.evaluation), run.evaluations)
    result = {
        "regime": run.regime,
        "strategy": run.strategy,
        "seed": run.seed,
        "checkpoint": run.checkpoint,
        "settings": run.settings,
        "scores": scores,
        "seconds": {"training": trained - started, "evaluation": time.perf_counter() - trained},
    }
    unfinished = run.directory / f"{RESULT}.unfinished"
    unfinished.write_text(json.dumps(result, indent=1))
    unfinished.replace(run.directory / RESULT)


def train(recipe: Recipe, first: bool = True) -> int:
    """One run, as the command does it but for its evaluations; the policy is whole, adapters are merged into it."""
    trainer = build_trainer(recipe, **ONE_PROCESS)
    output = output_of(recipe)
    with tracked(trainer):
        trainer.train()
        write_recipe(recipe, output / "recipe.yaml")
        save_policy(trainer)
    release(trainer)
    if holds_adapter(output):
        fold_adapter(output, recipe.model.name_or_path, recipe.model.revision)
    return 0


def evaluate(recipe: Recipe, times: int) -> dict[str, float]:
    """Mean held-out reward of each domain over `times` evaluations, which sample anew.

    Raises:
        ValueError: an evaluation scored nothing of some domain, so there is no mean of all domains.
    """
    # This seeds everything: the same prompts and the same noise for every strategy.
    trainer = build_trainer(recipe, **ONE_PROCESS)
    with tracked(trainer):
        open_trackers(trainer)
        for _ in range(times):
            trainer.evaluate()
    release(trainer)
    history: list[dict[str, Any]] = trainer.state.log_history
    found: dict[str, list[float]] = {}
    for entry in history:
        for name, value in entry.items():
            if match := _SCORE.fullmatch(name):
                found.setdefault(match[1], []).append(value)
    for name in recipe.domains:
        if (scored := len(found.get(name, []))) < times:
            raise ValueError(f"{times - scored} of {times} evaluations scored no completion of domain {name!r}.")
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}
