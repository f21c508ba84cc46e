"""Strategies: names for how the domains of a recipe are trained together, as fields of `MGSConfig`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgs_trl.recipe import Recipe, did_you_mean

SMOOTHING = 0.9  # the best of those tried at small size


@dataclass(frozen=True)
class Strategy:
    """What a strategy says about the trainer.

    Attributes:
        defaults: trainer fields it sets where the recipe leaves them open.
        forbids: values that would make it another strategy, by field.
    """

    defaults: Mapping[str, Any]
    forbids: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)


def _is_idle(surgery: Any) -> bool:
    return surgery in ("none", "observe")


def _other_than(*allowed: Any) -> Callable[[Any], bool]:
    return lambda value: value not in allowed


def _is_zero(value: Any) -> bool:
    return value == 0


_MODULAR = {"surgery": _is_idle, "granularity": lambda value: value == "global"}
_GLOBAL = {"surgery": _is_idle, "granularity": _other_than("global")}
_NO_SURGERY = {"surgery": _other_than("none")}
_BALANCED = {"balance": lambda value: value == "none", "gramian_ema": lambda value: value != 0}
_SMOOTHED = {"balance": lambda value: value == "none", "gramian_ema": _is_zero}
_BALANCE = {"balance": "domain", "gramian_ema": 0.0}
_SMOOTH = {"balance": "domain", "gramian_ema": SMOOTHING}
_MGS = {"surgery": "pcgrad", "granularity": "block"}
_GGS = {"surgery": "pcgrad", "granularity": "global"}
_NONE = {"surgery": "none"}

STRATEGIES: dict[str, Strategy] = {
    # Module by module. Any rule and any granularity but one module for the whole model.
    "mgs": Strategy(_MGS, _MODULAR),
    "global_surgery": Strategy(_GGS, _GLOBAL),
    "mixed": Strategy(_NONE, _NO_SURGERY),
    "observe": Strategy({"surgery": "observe"}, {"surgery": _other_than("observe")}),
    # Advantages divided by the standard deviation of the domain's rewards in the batch, not by the prompt group's.
    "normalized_advantage": Strategy(
        {**_NONE, "scale_rewards": "batch"}, {**_NO_SURGERY, "scale_rewards": _other_than("batch")}
    ),
    # Controls: is it the projection, or the weights that projections amount to?
    "balanced": Strategy({**_NONE, **_BALANCE}, {**_NO_SURGERY, **_BALANCED}),
    "smoothed_balanced": Strategy({**_NONE, **_SMOOTH}, {**_NO_SURGERY, **_SMOOTHED}),
    "balanced_mgs": Strategy({**_MGS, **_BALANCE}, {**_MODULAR, **_BALANCED}),
    "smoothed_balanced_mgs": Strategy({**_MGS, **_SMOOTH}, {**_MODULAR, **_SMOOTHED}),
    "balanced_global_surgery": Strategy({**_GGS, **_BALANCE}, {**_GLOBAL, **_BALANCED}),
    "smoothed_balanced_global_surgery": Strategy({**_GGS, **_SMOOTH}, {**_GLOBAL, **_SMOOTHED}),
    "rescaled": Strategy({"surgery": "rescaled", "granularity": "block"}, {"surgery": _other_than("rescaled")}),
    "fixed_weights": Strategy({**_NONE, "balance": "none"}, {**_NO_SURGERY, "balance": _other_than("none")}),
    # One of the recipe's domains; the others are evaluated only.
    "single": Strategy(_NONE, _NO_SURGERY),
    # Several runs of `single` (mgs_trl.strategies.stages): one after another, or apart and then merged.
    "sequential": Strategy(_NONE, _NO_SURGERY),
    "merge": Strategy(_NONE, _NO_SURGERY),
}


@dataclass(frozen=True)
class Options:
    """Options that a strategy may have, and of which of them it needs exactly one."""

    allowed: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()


#: Of each strategy that has any: `strategy: {single: {domain: math}}`.
OPTIONS: dict[str, Options] = {
    "fixed_weights": Options(("weights", "from"), one_of=("weights", "from")),
    "single": Options(("domain",), one_of=("domain",)),
    "sequential": Options(("order", "steps"), one_of=("order",)),
    "merge": Options(("method", "experts", "weights", "density")),
}


def strategy_of(recipe: Recipe) -> tuple[str, dict[str, Any]]:
    """Name and options of a recipe's strategy.

    Raises:
        ValueError: an unknown strategy or option, or one that is missing.
    """
    given = recipe.strategy
    if isinstance(given, str):
        given = {given: {}}
    if not isinstance(given, Mapping) or len(given) != 1:
        raise ValueError(f"strategy is {recipe.strategy!r}, but it must be a name or one {{name: {{option: value}}}}.")
    ((name, options),) = given.items()
    if name not in STRATEGIES:
        raise ValueError(
            f"strategy is {name!r}, but it must be one of {', '.join(STRATEGIES)}." + did_you_mean(name, STRATEGIES)
        )
    known = OPTIONS.get(name, Options())
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise ValueError(f"strategy.{name} is {options!r}, but it must map options to values.")
    for option in options:
        if option not in known.allowed:
            raise ValueError(
                f"strategy.{name} has the unknown option {option!r}; allowed: {', '.join(known.allowed) or 'none'}."
                + did_you_mean(option, known.allowed)
            )
    if known.one_of and len(set(known.one_of) & set(options)) != 1:
        raise ValueError(
            f"strategy.{name} has the options {sorted(options)}, but it needs one of {', '.join(known.one_of)}."
        )
    return name, dict(options)


def trained_domains(recipe: Recipe) -> list[str]:
    """The domains that are trained on: all, but for the strategies `single` and `sequential`.

    Raises:
        ValueError: a domain that the recipe does not have.
    """
    name, options = strategy_of(recipe)
    if name == "single":
        return [known_domain(recipe, options["domain"], "strategy.single.domain")]
    if name == "sequential":
        order = options["order"]
        if not isinstance(order, Sequence) or isinstance(order, str) or not order:
            raise ValueError(f"strategy.sequential.order is {order!r}, but it must be a list of domains.")
        return list(dict.fromkeys(known_domain(recipe, domain, "strategy.sequential.order") for domain in order))
    return list(recipe.domains)


def known_domain(recipe: Recipe, domain: Any, where: str) -> str:
    """`domain`, if the recipe has it.

    Args:
        where: the key that names it, for the error.

    Raises:
        ValueError: it has not.
    """
    if not isinstance(domain, str) or domain not in recipe.domains:
        raise ValueError(
            f"{where} has {domain!r}, but it must be one of {', '.join(recipe.domains)}."
            + did_you_mean(domain, recipe.domains)
        )
    return domain


def strategy_fields(recipe: Recipe) -> dict[str, Any]:
    """Trainer fields that the strategy sets where the recipe leaves them open.

    Raises:
        ValueError: an unknown strategy or option, or a trainer field that would make it another strategy.
    """
    name, options = strategy_of(recipe)
    strategy = STRATEGIES[name]
    for key, forbidden in strategy.forbids.items():
        if key in recipe.trainer and forbidden(recipe.trainer[key]):
            raise ValueError(
                f"trainer.{key} is {recipe.trainer[key]!r}, which contradicts strategy {name!r} "
                f"(its {key} is {strategy.defaults[key]!r})."
            )
    fields = dict(strategy.defaults)
    if name == "fixed_weights":
        if "domain_weights" in recipe.trainer:
            raise ValueError("trainer.domain_weights is set, but the strategy fixed_weights sets it; give one of them.")
        fields["domain_weights"] = options["weights"] if "weights" in options else mean_weights(options["from"])
    return fields


def mean_weights(output_dir: str) -> dict[str, float]:
    """The constant domain weights that are nearest to what surgery did in a run.

    They are means over steps and modules in which a step counts by the squared norm of the domain's gradient there.

    Args:
        output_dir: of a run with surgery; its conflicts.jsonl is read.

    Raises:
        ValueError: there is no such log, or nothing in it can be used.
    """
    from mgs_trl.report.conflicts import read_conflicts

    path = Path(str(output_dir)).expanduser() / "conflicts.jsonl"
    if not path.is_file():
        raise ValueError(f"strategy.fixed_weights.from is {output_dir!r}, but that directory holds no conflicts.jsonl.")
    found = read_conflicts(path)
    if found is None:
        raise ValueError(f"strategy.fixed_weights.from is {output_dir!r}, but its conflicts.jsonl holds no whole line.")
    return dict(zip(found.domains, found.weights.constant().tolist(), strict=True))
