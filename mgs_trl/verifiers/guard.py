"""Guarding a reward function written by somebody else: length, finiteness, and errors that name the
sample."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from mgs_trl.verifiers.errors import VerifierError, sample_error


def load_function(path: str) -> Callable[..., Any]:
    """Import "package.module:function"; raises ValueError when it is not there or not callable."""
    module_name, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"verifier {path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"verifier {path!r} is a {type(found).__name__}, not a function")
    return found


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling `function` gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


TRL_ARGUMENTS = ("prompts", "completions", "completion_ids")
TRAINER_ARGUMENTS = ("trainer_state", "log_extra", "log_metric", "environments")


def parameters_of(function: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """The names `function` takes, without and with a default: those of dataset columns and of TRL's own
    arguments."""
    named = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    needed = [parameter.name for parameter in named if parameter.default is parameter.empty]
    return needed, [parameter.name for parameter in named if parameter.name not in needed]


def columns_of(function: Callable[..., Any]) -> tuple[tuple[str, ...], ...]:
    """The dataset columns `function` names in its signature, as a verifier's `column_choices`."""
    known = (*TRL_ARGUMENTS, *TRAINER_ARGUMENTS)
    needed, optional = ([name for name in names if name not in known] for names in parameters_of(function))
    choices = [tuple(needed)] if needed else [()] if optional else []
    return (*choices, tuple(needed + optional)) if optional else tuple(choices)


def is_finite(score: Any) -> bool:
    """Whether `score` is a number that a float can hold."""
    try:
        return isinstance(score, (int, float)) and math.isfinite(score)
    except OverflowError:
        return False


def as_list(scores: Any, name: str, count: int) -> list[Any]:
    """`scores`, a list or an array, as a list of Python's own numbers, whatever their values; raises VerifierError
    when it is neither or does not hold `count` of them."""
    values = scores.tolist() if hasattr(scores, "tolist") else scores
    if isinstance(values, (str, bytes, Mapping, Set)) or not isinstance(values, Iterable):
        raise VerifierError(f"verifier {name!r} returned {type(scores).__name__}, expected a list of scores")
    values = [plain_number(value) for value in values]
    if len(values) != count:
        raise VerifierError(f"verifier {name!r} returned {len(values)} scores for {count} completions")
    return values


def evaluated(scores: Any) -> Any:
    """`scores`, of which a generator is run to its end: it may raise."""
    return list(scores) if isinstance(scores, Iterator) else scores


def plain_number(value: Any) -> Any:
    """The number in a scalar of numpy or torch; anything else as it is."""
    try:
        return value.item() if hasattr(value, "item") else value
    except (TypeError, ValueError, RuntimeError):  # an array of several
        return value


def check_scores(
    scores: Any, name: str, prompts: Sequence, completions: Sequence, domains: Sequence | None
) -> list[float | None]:
    """`scores` as a list of finite floats or None, one per completion; raises VerifierError naming the bad
    sample."""
    checked: list[float | None] = []
    for index, value in enumerate(as_list(scores, name, len(completions))):
        if value is not None and not is_finite(value):
            domain = domains[index] if domains is not None else None
            problem = f"returned {value!r}, which is no finite number or None"
            raise sample_error(name, domain, index, problem, prompts[index], completions[index])
        checked.append(None if value is None else float(value))
    return checked


def guard_reward(
    function: Callable[..., Any], name: str, domain_column: str = "domain", *, finite: bool = True
) -> Callable[..., Any]:
    """`function` with its result checked and its exceptions wrapped in a VerifierError that names it.

    `finite`: whether a score that is no finite number raises; without, only a wrong type or length does.
    An async function stays async. A function that raises on a batch is named with the batch's first sample;
    which sample it was, only the function knows (isolated functions are called row by row and name the
    row).
    """

    def failure(
        error: BaseException, prompts: Sequence, completions: Sequence, columns: dict[str, Any]
    ) -> VerifierError:
        domains = columns.get(domain_column)
        problem = f"raised {type(error).__name__}: {error} on a batch of {len(completions)} starting here"
        if not completions:
            return VerifierError(f"verifier {name!r} raised {type(error).__name__}: {error} on an empty batch")
        return sample_error(name, domains[0] if domains else None, 0, problem, prompts[0], completions[0])

    def checked(scores: Any, prompts: Sequence, completions: Sequence, columns: dict[str, Any]) -> list[Any]:
        if not finite:
            return as_list(scores, name, len(completions))
        return check_scores(scores, name, prompts, completions, columns.get(domain_column))

    if is_async(function):

        async def guarded_async(prompts: Sequence, completions: Sequence, **columns: Any) -> list[Any]:
            try:
                scores = evaluated(await function(prompts=prompts, completions=completions, **columns))
            except (Exception, SystemExit) as error:  # an exit would be the run's, and look like success
                raise failure(error, prompts, completions, columns) from error
            return checked(scores, prompts, completions, columns)

        guarded: Callable[..., Any] = guarded_async
    else:

        def guarded_sync(prompts: Sequence, completions: Sequence, **columns: Any) -> list[Any]:
            try:
                scores = evaluated(function(prompts=prompts, completions=completions, **columns))
            except (Exception, SystemExit) as error:  # an exit would be the run's, and look like success
                raise failure(error, prompts, completions, columns) from error
            return checked(scores, prompts, completions, columns)

        guarded = guarded_sync
    functools.update_wrapper(guarded, function, updated=())
    guarded.__name__ = name
    return guarded
