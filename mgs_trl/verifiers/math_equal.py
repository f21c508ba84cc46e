"""Equality of two answers as mathematics, by math-verify."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1024)  # completions of one prompt often end in the same wrong answer
def equal(gold: str, prediction: str) -> bool:
    """Whether what math-verify extracts from the texts `gold` and `prediction` is the same.

    Without its own time limit: that needs a main thread and does not hold (the pool's does). Raises MemoryError.
    """
    from math_verify import parse, verify

    try:
        expected = parse(gold, parsing_timeout=None)  # pyright: ignore[reportArgumentType]
        found = parse(prediction, parsing_timeout=None)  # pyright: ignore[reportArgumentType]
        return verify(expected, found, timeout_seconds=None)
    except MemoryError:
        raise
    except Exception:  # of a kind that `_let_memory_errors_out` did not know yet: not equal, as math-verify has it
        return False


def warm_up() -> None:
    """Import math-verify, build its grammar, and let MemoryError out of it, before the first sample's clock
    runs."""
    import logging

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns per sample that its own limit is off
    equal("\\boxed{\\frac{1}{2}}", "\\boxed{0.5}")
    _let_memory_errors_out()


def _let_memory_errors_out() -> None:
    """math-verify takes every Exception for "not equal": out of memory, a right answer would score 0.0 unseen.

    Its `except Exception` looks the name up in its module, where it now means all but MemoryError.
    """
    from math_verify import grader, parser

    if hasattr(parser, "Exception"):
        return
    survivable = tuple(kind for kind in Exception.__subclasses__() if kind is not MemoryError)
    latex2sympy = parser.latex2sympy

    def parsed(*arguments: Any, **options: Any) -> Any:
        try:
            return latex2sympy(*arguments, **options)
        except MemoryError:
            raise
        except Exception as error:  # the grammar raises plain ones, which no tuple of subclasses holds
            raise ValueError(str(error)) from error

    parser.latex2sympy = parsed  # pyright: ignore[reportPrivateImportUsage]
    for module in (grader, parser):
        module.Exception = survivable  # pyright: ignore[reportAttributeAccessIssue]
