"""Strategies that are several runs of one domain each: which runs, and where each leaves its policy."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgs_trl.recipe import Recipe, output_of
from mgs_trl.runs.trackers import tracked_as
from mgs_trl.strategies.fields import known_domain, strategy_of, trained_domains
from mgs_trl.strategies.vectors import check_merge


@dataclass(frozen=True)
class Stage:
    """A run of its own: the recipe with the strategy `single`, in a directory inside the whole run's.

    Attributes:
        name: of the directory, such as `1_math`.
        continues: whether it starts from the policy of the stage before it, not from the recipe's model.
    """

    name: str
    recipe: Recipe
    continues: bool

    @property
    def output(self) -> Path:
        return output_of(self.recipe)


def stages_of(recipe: Recipe) -> list[Stage]:
    """The runs that `sequential` and `merge` consist of, in their order; none for every other strategy.

    `sequential` trains one domain after another, each stage from the policy that the one before it left, which is also
    the reference of its KL term (paper, baselines). `merge` trains an expert of each domain from the recipe's model,
    unless the recipe names experts that there are already.

    Raises:
        ValueError: a domain that the recipe does not have, or options that do not fit.
    """
    name, options = strategy_of(recipe)
    if name == "sequential":
        trained_domains(recipe)
        steps = _steps(recipe, options)
        return [
            _stage(recipe, f"{place}_{domain}", domain, steps.get(domain), continues=place > 1)
            for place, domain in enumerate(options["order"], 1)
        ]
    if name == "merge":
        experts = given_experts(recipe)
        check_merge(options.get("method", "linear"), options.get("weights"), options.get("density"), recipe.domains)
        return [] if experts else [_stage(recipe, f"expert_{d}", d, None, continues=False) for d in recipe.domains]
    return []


def given_experts(recipe: Recipe) -> dict[str, str]:
    """Directory of each domain's expert as the recipe's `merge` names it; empty where they are to be trained.

    Raises:
        ValueError: experts that are not those of the recipe's domains, or not directories.
    """
    experts: Any = strategy_of(recipe)[1].get("experts")
    if experts is None:
        return {}
    if not isinstance(experts, Mapping) or set(experts) != set(recipe.domains):
        raise ValueError(
            f"strategy.merge.experts is {experts!r}, but it must map each domain ({', '.join(recipe.domains)}) to the "
            "directory of its policy."
        )
    found = {domain: Path(str(experts[domain])).expanduser() for domain in recipe.domains}
    for domain, directory in found.items():
        if not directory.is_dir():
            raise ValueError(f"strategy.merge.experts.{domain} is {str(directory)!r}, but that is not a directory.")
    return {domain: str(directory) for domain, directory in found.items()}


def _steps(recipe: Recipe, options: Mapping[str, Any]) -> dict[str, int]:
    """Optimizer steps by domain, where the recipe says so; the others take `trainer.max_steps` or its epochs."""
    steps = options.get("steps") or {}
    if isinstance(steps, int) and not isinstance(steps, bool):
        steps = dict.fromkeys(options["order"], steps)
    if not isinstance(steps, Mapping):
        raise ValueError(f"strategy.sequential.steps is {steps!r}, but it must be a number, or one for each domain.")
    for domain, value in steps.items():
        known_domain(recipe, domain, "strategy.sequential.steps")
        if domain not in options["order"]:
            raise ValueError(f"strategy.sequential.steps has {domain!r}, but order has only {options['order']}.")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"strategy.sequential.steps.{domain} is {value!r}, but it must be a whole number above 0.")
    return dict(steps)


def _stage(recipe: Recipe, name: str, domain: str, steps: int | None, continues: bool) -> Stage:
    own = copy.deepcopy(recipe)
    own.strategy = {"single": {"domain": domain}}
    own.trainer["output_dir"] = str(output_of(recipe) / name)
    own.trainer["run_name"] = tracked_as(recipe.trainer.get("run_name"), output_of(recipe), name)
    own.trainer.pop("domain_weights", None)  # of a domain against others, and here there is one
    if steps is not None:
        own.trainer["max_steps"] = steps
    return Stage(name, own, continues)
