"""Which runs a study consists of, where each leaves its results, and which must come before which."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mgs_trl.composition import override_value
from mgs_trl.recipe import Recipe, StudySpec, did_you_mean, recipe_yaml
from mgs_trl.runs.trackers import tracked_as

MEAN = "mean"  # the plain mean of all domains, listed like a domain
BASE = "base"  # the policies that training starts from, evaluated like all others
RECIPE = "MGS_TRL_STUDY_RECIPE"  # environment variable: the recipe's file, for the workers
RESULT = "result.json"  # a run is finished when it has this file, which is written last
_REFERENCE = re.compile(r"<(\w+)>")


@dataclass(frozen=True)
class Run:
    """One training run with its final evaluation, or the evaluation of a checkpoint (`strategy` is `base`).

    Attributes:
        checkpoint: index of the policy it starts from.
        directory: where it writes everything.
        training: overrides of the recipe that is trained; none for `base`.
        evaluation: overrides of the recipe on whose held-out data the policy is evaluated.
        needs: runs that must be finished before.
        settings: hash of what it was asked to do, for telling a finished run from one of another study.
        evaluations: of the policy that comes of it.
    """

    regime: str
    strategy: str
    seed: int
    checkpoint: int
    directory: Path
    training: tuple[str, ...]
    evaluation: tuple[str, ...]
    needs: tuple[str, ...]
    settings: str
    evaluations: int = 1

    @property
    def name(self) -> str:
        return run_name(self.regime, self.strategy, self.seed)

    @property
    def finished(self) -> bool:
        return (self.directory / RESULT).is_file()


def run_name(regime: str, strategy: str, seed: int) -> str:
    """How a run is called in tables, and its directory under `runs/`."""
    return f"{regime}/{strategy}/seed{seed}"


def plan_runs(recipe: Recipe, overrides: Sequence[str], root: Path) -> list[Run]:
    """All runs of a recipe's study, seed by seed, so that an interrupted study has compared whole seeds.

    Args:
        overrides: those that `recipe` was loaded with; each run adds its own to them.
        root: the study's directory.

    Raises:
        ValueError: the study names something that it does not have, or a domain has the name of the mean.
    """
    study = recipe.study
    check_study(study)
    assert study is not None
    for sequence in study.sequences:
        _known("study.sequences", sequence, recipe.domains)
    if MEAN in recipe.domains:
        raise ValueError(f"domains has the name {MEAN!r}, which a study's tables give to the mean of all domains.")
    common = hashlib.sha256(_without_study(recipe).encode()).hexdigest()
    called = recipe.trainer.get("run_name")
    runs = []
    for seed in range(study.seeds):
        start = seed % len(study.checkpoints)
        if seed == start:
            own = [*overrides, *study.checkpoints[start]]
            runs.append(_run(study, common, root, called, BASE, BASE, seed, own))
        for regime, changes in study.regimes.items():
            for strategy in study.strategies:
                if regime in study.only.get(strategy, study.regimes):
                    own = [*overrides, *study.checkpoints[start], *changes]
                    runs.append(_run(study, common, root, called, regime, strategy, seed, own))
    return runs


def _run(
    study: StudySpec,
    common: str,
    root: Path,
    called: str | None,
    regime: str,
    strategy: str,
    seed: int,
    own: list[str],
) -> Run:
    tracked = tracked_as(called, root, run_name(regime, strategy, seed).replace("/", "-"))
    directory = root / "runs" / run_name(regime, strategy, seed)
    seeded = f"trainer.seed={seed}"
    training: list[str] = []
    asked = study.strategies.get(strategy, [])
    needs = [run_name(regime, other, seed) for text in asked for other in _REFERENCE.findall(text)]
    if strategy != BASE:
        changes = [
            _REFERENCE.sub(lambda m: override_value(root / "runs" / run_name(regime, m[1], seed)), t) for t in asked
        ]
        place = [f"trainer.output_dir={override_value(directory)}", f"trainer.run_name={override_value(tracked)}"]
        training = [*own, *changes, seeded, *place]
    place = [
        f"trainer.output_dir={override_value(directory / 'evaluation')}",
        f"trainer.run_name={override_value(f'{tracked}-evaluation')}",
    ]
    evaluation = [*own, "peft=null", seeded, *place]
    if strategy != BASE:
        evaluation.append(f"model.name_or_path={override_value(directory)}")
    lasting = [text for text in own if not text.startswith("trainer.output_dir=")]  # a study may move
    settings = json.dumps([common, study.evaluations, regime, strategy, seed, lasting, *_made_of(study, strategy)])
    return Run(
        regime,
        strategy,
        seed,
        checkpoint=seed % len(study.checkpoints),
        directory=directory,
        training=tuple(training),
        evaluation=tuple(evaluation),
        needs=tuple(dict.fromkeys(needs)),
        settings=hashlib.sha256(settings.encode()).hexdigest()[:16],
        evaluations=study.evaluations,
    )


def _made_of(study: StudySpec, strategy: str) -> list[Any]:
    """What a strategy asks for, and what those do whose runs it builds on."""
    asked = study.strategies.get(strategy, [])
    others = dict.fromkeys(other for text in asked for other in _REFERENCE.findall(text))
    return [asked, *(_made_of(study, other) for other in others)]


def _without_study(recipe: Recipe) -> str:
    """The recipe without what only says which runs there are, and where: more seeds leave finished runs as they are."""
    trainer = {name: value for name, value in recipe.trainer.items() if name != "output_dir"}
    return recipe_yaml(replace(recipe, study=None, trainer=trainer))


def check_study(study: StudySpec | None) -> None:
    """Raises ValueError for a study without strategies, or one that names what it does not have."""
    if study is None or not study.strategies:
        raise ValueError("study.strategies is empty, but a study compares at least one strategy.")
    for field, value in (("seeds", study.seeds), ("evaluations", study.evaluations), ("workers", study.workers)):
        if value is not None and value < 1:
            raise ValueError(f"study.{field} is {value}, but it must be at least 1.")
    if not study.checkpoints:
        raise ValueError("study.checkpoints is empty, but it must have at least one entry; [] is the recipe's model.")
    for field, names in (("strategies", study.strategies), ("regimes", study.regimes)):
        for name in names:
            if not re.fullmatch(r"\w+", name) or name == BASE:
                raise ValueError(
                    f"study.{field} has the name {name!r}, but names are letters, digits and '_', not base."
                )
    _known("study.baseline", [study.baseline], study.strategies)
    for pair in study.contrasts:
        if len(pair) != 2:
            raise ValueError(f"study.contrasts has {pair!r}, but a contrast is a pair of strategies.")
        _known("study.contrasts", pair, study.strategies)
    for strategy, regimes in study.only.items():
        _known("study.only", [strategy], study.strategies)
        _known(f"study.only.{strategy}", regimes, study.regimes)
    for sequence in study.sequences:
        _known("study.sequences", sequence.values(), study.strategies)
    _check_references(study)


def _check_references(study: StudySpec) -> None:
    needs = {
        strategy: [other for text in changes for other in _REFERENCE.findall(text)]
        for strategy, changes in study.strategies.items()
    }
    for strategy, others in needs.items():
        _known(f"study.strategies.{strategy}", others, study.strategies)
        for other in others:
            missing = set(study.only.get(strategy, study.regimes)) - set(study.only.get(other, study.regimes))
            if missing:
                raise ValueError(
                    f"study.strategies.{strategy} needs {other!r}, which does not run in {min(missing)!r}."
                )
    left = dict(needs)
    while left:
        ready = [strategy for strategy, others in left.items() if not set(others) & set(left)]
        if not ready:
            raise ValueError(f"study.strategies has a circle: {', '.join(left)} need one another.")
        for strategy in ready:
            del left[strategy]


def _known(field: str, names: Iterable[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(
                f"{field} names {name!r}, but there are only {', '.join(known)}." + did_you_mean(name, known)
            )
