"""From a recipe's `verifier:` value to reward functions.

```yaml
verifier: math                                   # a name
verifier: {reward_model: {model: path, clip: [-10, 10]}}
verifier: [{math: {fallback: none}, weight: 1.0}, {thinking_format: {}, weight: 0.2}]
verifier: my_package.rewards:brevity             # any TRL reward function
verifier: {my_package.rewards:Brevity: {words: 50}}   # a class of one's own that derives from `Verifier`
```
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mgs_trl.verifiers.base import Verifier
from mgs_trl.verifiers.functions import function_class, function_verifier
from mgs_trl.verifiers.guard import load_function
from mgs_trl.verifiers.instructions.verifier import IFEvalVerifier
from mgs_trl.verifiers.math import MathVerifier, ThinkingFormat
from mgs_trl.verifiers.reward_model import RewardModelVerifier
from mgs_trl.verifiers.reward_server import RewardServerVerifier

VERIFIERS: dict[str, Callable[..., Verifier]] = {
    "math": MathVerifier,
    "ifeval": IFEvalVerifier,
    "thinking_format": ThinkingFormat,
    "reward_model": RewardModelVerifier,
    "reward_server": RewardServerVerifier,
}


def register_verifier(name: str, make: Callable[..., Verifier]) -> None:
    """Make `name` usable in recipes that this process builds: `make(domain, **options)` returns the verifier.

    The commands import nothing that would call this; a recipe for them names the class, `package.module:Name`.
    """
    if name in VERIFIERS:
        raise ValueError(f"verifier {name!r} is registered already")
    VERIFIERS[name] = make


def build_verifier(
    spec: Any, domain: str | None = None, domain_column: str = "domain"
) -> list[tuple[Callable[..., Any], float]]:
    """The reward functions of one domain with their weights.

    `spec`: a name or "package.module:function", a mapping `{name: options}`, a reward function, or a list
    of these, each mapping with an optional `weight` beside the name. The functions have distinct names
    `domain/label` and give None for rows of other domains. In place of a function there may be a subclass of
    `Verifier`, which is made as a registered one is. Raises ValueError on unknown names and options,
    with a suggestion, and where no verifier has a weight above zero.
    """
    items = list(spec) if isinstance(spec, Sequence) and not isinstance(spec, str) else [spec]
    if not items:
        raise ValueError(f"domain {domain!r}: verifier must name at least one verifier, got an empty list")
    built = []
    for item in items:
        name, options, weight = _entry(item, domain)
        built.append((_make(name, options, domain, domain_column), weight))
    if not any(weight for _, weight in built):
        raise ValueError(f"domain {domain!r}: weight of one verifier at least must be more than zero, all are 0")
    _distinct_names([verifier for verifier, _ in built])
    return built


def _entry(item: Any, domain: str | None) -> tuple[Any, dict[str, Any], float]:
    if isinstance(item, Mapping):
        names = [key for key in item if key != "weight"]
        if len(names) != 1:
            raise ValueError(f"domain {domain!r}: a verifier mapping must hold one name beside weight, got {names}")
        options = item[names[0]]
        if options is not None and not isinstance(options, Mapping):
            raise ValueError(f"domain {domain!r}: options of verifier {names[0]!r} must be a mapping, got {options!r}")
        options = _plain(options or {})
        weight = item.get("weight", options.pop("weight", 1.0))
        return names[0], options, _weight(weight, names[0], domain)
    return item, {}, 1.0


def _plain(value: Any) -> Any:
    """Mappings and sequences of a configuration library as dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(inner) for inner in value]
    return value


def _weight(value: Any, name: Any, domain: str | None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ValueError(
            f"domain {domain!r}: weight of verifier {name!r} must be a number, zero or more, got {value!r}"
        )
    return float(value)


def _make(name: Any, options: dict[str, Any], domain: str | None, domain_column: str) -> Verifier:
    make: Callable[..., Verifier]
    arguments: tuple[Any, ...] = (domain,)
    loaded = load_function(name) if isinstance(name, str) and ":" in name else name
    if inspect.isclass(loaded):
        if not issubclass(loaded, Verifier):
            raise ValueError(
                f"domain {domain!r}: verifier {name!r} is a class that does not derive from mgs_trl.verifiers."
                "Verifier, but it must be one that does, or a function"
            )
        make, known = loaded, _option_names(loaded)
    elif callable(loaded):
        make, arguments = function_verifier, (name, domain)
        known = (_option_names(function_class(name, options.get("isolated"))) or set()) | {"isolated"}
    elif isinstance(name, str) and name in VERIFIERS:
        make, known = VERIFIERS[name], _option_names(VERIFIERS[name])
    else:
        near = difflib.get_close_matches(str(name), VERIFIERS, n=1)
        hint = f", did you mean {near[0]!r}" if near else ""
        raise ValueError(
            f"domain {domain!r}: verifier {name!r} is unknown{hint}; "
            f"known are {', '.join(VERIFIERS)} and any 'package.module:function' or 'package.module:Verifier'"
        )
    _check_options(known, name, options, domain)
    try:
        inspect.signature(make).bind(*arguments, domain_column=domain_column, **options)
        return make(*arguments, domain_column=domain_column, **options)
    except TypeError as error:  # an option that is missing, or of another type
        raise ValueError(f"domain {domain!r}: verifier {name!r} cannot be made: {error}") from error


def _check_options(known: set[str] | None, name: Any, options: Mapping[str, Any], domain: str | None) -> None:
    for option in options:
        if known is not None and option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f", did you mean {near[0]!r}" if near else ""
            raise ValueError(
                f"domain {domain!r}: verifier {name!r} has no option {option!r}{hint}; "
                f"it has {', '.join(sorted(known))}"
            )


def _option_names(make: Callable[..., Any]) -> set[str] | None:
    """The keyword-only options of a verifier class and its bases; None where a function takes any."""
    if not inspect.isclass(make):
        return None
    names: set[str] = set()
    for cls in make.__mro__[:-1]:
        for parameter in inspect.signature(cls.__init__).parameters.values() if "__init__" in vars(cls) else ():
            if parameter.kind is parameter.KEYWORD_ONLY:
                names.add(parameter.name)
    return names - {"domain_column"}


def _distinct_names(verifiers: list[Verifier]) -> None:
    seen: dict[str, int] = {}
    for verifier in verifiers:
        name = verifier.__name__
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            verifier.__name__ = f"{name}_{seen[name]}"
