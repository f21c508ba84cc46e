"""Equality of two answers as mathematics, by math-verify."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from importlib.util import find_spec, module_from_spec
from typing import Any

_ROUNDED = 1e-6  # math-verify compares six decimals
_NOISE = 1e-60  # what sympy computes for a zero that it does not recognise
_ABOUT = 0.005


@lru_cache(maxsize=1024)  # completions of one prompt often end in the same wrong answer
def equal(gold: str, prediction: str) -> bool:
    r"""Whether what math-verify extracts from the texts `gold` and `prediction` is the same. Of a `\boxed{...}` that
    is all of its content, as text where it is no mathematics.

    Without its own time limit: that needs a main thread and does not hold (the pool's does). Raises MemoryError.
    """
    _, verify = _math_verify()
    try:
        expected, found = _parsed(gold), _parsed(prediction)
        same = verify(expected, found, timeout_seconds=None, allow_set_relation_comp=True)
        return same and not _differ_though_tiny(expected, found) and not _differ_in_infinity(expected, found)
    except MemoryError:
        raise
    except Exception:  # of a kind that `_math_verify` did not know yet: not equal, as math-verify has it
        return False


def value(text: str) -> float | None:
    """The real number that `text` is, None of anything else."""
    from sympy import Expr

    try:
        found, *_ = _parsed(f"\\boxed{{{text}}}")
        return float(found) if isinstance(found, Expr) and found.is_number else None
    except MemoryError:
        raise
    except Exception:  # sympy raises many kinds: no number
        return None


def found_text(text: str) -> str:
    """What math-verify takes for the answer in `text`, as written there; "" if nothing."""
    try:
        return next((part for part in reversed(_parsed(text)) if isinstance(part, str)), "")
    except MemoryError:
        raise
    except Exception:
        return ""


def _parsed(text: str) -> list[Any]:
    # Of a box that it cannot read, "any_match" would take the last number: the 7 of `2 \pmod 7`.
    mode = "first_match" if text.startswith("\\boxed{") else "any_match"
    return _math_verify()[0](text, parsing_timeout=None, extraction_mode=mode)


@lru_cache(maxsize=1)
def _math_verify() -> tuple[Callable[..., list[Any]], Callable[..., bool]]:
    """Its `parse` and `verify`, to which letters that differ by case are different (by itself it takes R/r for 1), and
    which let MemoryError out (it takes every Exception for "not equal": out of memory, a right answer would score 0.0).

    Both come from copies of its modules: a reward function of the user may use math-verify in this process.
    """
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    parser, grader = (_copy(f"math_verify.{name}") for name in ("parser", "grader"))
    by_case = partial(parser.latex2sympy, conversion_config=ConversionConfig(lowercase_symbols=False))
    survivable = tuple(kind for kind in Exception.__subclasses__() if kind is not MemoryError)

    def parsed(*arguments: Any, **options: Any) -> Any:
        try:
            return by_case(*arguments, **options)
        except MemoryError:
            raise
        except Exception as error:  # the grammar raises plain ones, which no tuple of subclasses holds
            raise ValueError(str(error)) from error

    parser.latex2sympy = parsed
    for module in (parser, grader):
        module.Exception = survivable  # an `except Exception` in it looks the name up in the module
        module.TIMEOUT_WARNING_SHOWN = True  # it would warn that its own limit is off
    return parser.parse, grader.verify


def _copy(name: str) -> Any:
    spec = find_spec(name)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _differ_though_tiny(expected: list[Any], found: list[Any]) -> bool:
    """Whether both are numbers below what math-verify rounds to, and not about the same."""
    from sympy import Expr

    numbers = [value for (value, *_) in (expected, found) if isinstance(value, Expr) and value.is_number]
    try:
        one, other = (complex(value) for value in numbers)
    except (ArithmeticError, TypeError, ValueError):
        return False
    size = max(abs(one), abs(other))
    return _NOISE < size < _ROUNDED and abs(one - other) > _ABOUT * size


def _differ_in_infinity(expected: list[Any], found: list[Any]) -> bool:
    """Whether one has an infinite value that the other has not: math-verify may find those equal to anything, by the
    order in which a set gives its parts."""
    one, other = (_infinite(value) for value, *_ in (expected, found))
    return one is not None and other is not None and one != other


def _infinite(value: Any) -> set[Any] | None:
    """The infinite or undefined ones of a value or a list of them; None of an interval, which has its own ends."""
    from sympy import Eq, Expr, FiniteSet, Tuple, nan, oo, zoo

    if isinstance(value, Eq):
        return _infinite(value.rhs)
    if isinstance(value, (FiniteSet, Tuple)):
        parts = [_infinite(part) for part in value.args]
        return None if None in parts else {one for part in parts if part for one in part}
    if not isinstance(value, Expr):
        return None
    infinities = oo, -oo, zoo, nan
    result = value.doit() if value.has(*infinities) else value
    return {result} if result.has(*infinities) else set()


def warm_up() -> None:
    """Import math-verify and build its grammar before the first sample's clock runs."""
    equal("\\boxed{\\frac{1}{2}}", "\\boxed{0.5}")
