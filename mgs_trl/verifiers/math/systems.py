r"""Values with names, `x=1, y=2`, beside values without, `(1,2)`: math-verify compares them in any order."""

from __future__ import annotations

import re

from mgs_trl.verifiers.math.pieces import pieces

_NAME = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:_(?:\{\s*\w+\s*\}|\w))?")
_EQUATION = re.compile(r"([^=<>]+)=([^=<>]+)")
_SIZES = re.compile(r"\\(?:left|right)(?![A-Za-z])\s*")
_TUPLE = re.compile(r"\((.*)\)", re.DOTALL)
_COORDINATES = frozenset("xyz")

_Values = list[tuple[str, str]]  # names and what they equal, as written


def aligned(gold: str, answer: str) -> tuple[str, str]:
    """Both answers in a form in which names count: values of several names as a tuple, where the other answer has the
    same names or none. Values of one unknown (`x_1=1, x_2=-2`) are a list beside a list or `x=1, x=-2`."""
    texts = [_SIZES.sub("", text).strip() for text in (gold, answer)]
    named = [_named(text) for text in texts]
    systems = [values if _differ(values) else [] for values in named]
    if systems[0] and systems[1]:
        return _by_name(*systems) or (gold, answer)
    if not systems[0] and not systems[1]:
        return gold, answer
    named_gold = bool(systems[0])
    system, values, other = (systems[0], named[1], texts[1]) if named_gold else (systems[1], named[0], texts[0])
    one_unknown = _of_one_unknown([*system, *values])
    if values and not one_unknown:
        return gold, answer
    if one_unknown and not _TUPLE.fullmatch(other):
        one, two = _list(system), _list(values) or other
    else:
        by_alphabet = not named_gold or {name for name, _ in system} <= _COORDINATES
        one, two = _tuple(sorted(system) if by_alphabet else system), _as_tuple(other)
    return (one, two) if named_gold else (two, one)


def _named(text: str) -> _Values:
    """The names and values in `x=1, y=2` or `(x,y)=(1,2)`; nothing unless all of it is such."""
    parts = [_EQUATION.fullmatch(part) for part in pieces(text, ",;")]
    values = [(part.group(1).strip(), part.group(2).strip()) for part in parts if part]
    if len(values) == len(parts) == 1:
        sides = [_TUPLE.fullmatch(side) for side in values[0]]
        names, numbers = (pieces(side.group(1)) if side else [] for side in sides)
        values = list(zip(names, numbers, strict=False)) if len(names) == len(numbers) else []
    if not values or len(values) < len(parts) or not all(_NAME.fullmatch(name) for name, _ in values):
        return []
    return [(re.sub(r"[{}\s]", "", name), value) for name, value in values]


def _differ(values: _Values) -> bool:
    return len(values) > 1 and len({name for name, _ in values}) == len(values)


def _of_one_unknown(values: _Values) -> bool:
    return len({name.partition("_")[0] for name, _ in values}) == 1


def _by_name(gold: _Values, answer: _Values) -> tuple[str, str] | None:
    gold, answer = sorted(gold), sorted(answer)
    same = [name for name, _ in gold] == [name for name, _ in answer]
    return (_tuple(gold), _tuple(answer)) if same else None


def _list(values: _Values) -> str:
    return ",".join(value for _, value in values)


def _tuple(values: _Values) -> str:
    return f"({_list(values)})"


def _as_tuple(text: str) -> str:
    return f"({text})" if len(pieces(text)) > 1 else text
