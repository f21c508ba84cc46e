r"""What an equation answers: `x = 2+3 = 5` is 5, while `x^2 = 5`, `x+y = 5` and `6 = 5` are not."""

from __future__ import annotations

import re
from itertools import pairwise

from mgs_trl.verifiers.math.about import is_rounding
from mgs_trl.verifiers.math.equal import equal, value
from mgs_trl.verifiers.math.names import is_name, is_operation
from mgs_trl.verifiers.math.pieces import pieces
from mgs_trl.verifiers.math.units import split_unit

_RELATION = re.compile(r"[<>:]\s*=|=\s*[<>=]|\\not\s*=|\\=|\\begin(?![A-Za-z])")
_AND_OR = re.compile(
    r"\s*,?\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![\\A-Za-z])(?:and|or)(?![A-Za-z]))\s*"
)
_THEN = re.compile(r"\\(?:implies|iff|(?:Long)?[Rr]ightarrow|Leftrightarrow|therefore)(?![A-Za-z])|[⇒⟹]")
_WORDS = re.compile(r"(?:\\(?:text|mathrm|mbox)\s*\{[^{}]*\}\s*)+")
_BRACES = re.compile(r"\\\{(.*)\\\}", re.DOTALL)
_SIZES = re.compile(r"\\(?:left|right)(?![A-Za-z])\s*")
_VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_SAME = 1e-6  # relative


def concluded(gold: str, answer: str) -> tuple[str, str] | None:
    """What is left to compare of two cleaned answers: the values, where both have the same name or only one has any.
    None if one is an equation in unknowns and the other is none, or if a chain of equations contradicts itself."""
    expected, found = _settled_list(gold), _settled_list(answer)
    if expected is None or found is None or _unsolved(found, expected):
        return None
    return _without_names(expected, found)


def _settled_list(answer: str) -> str | None:
    """The answer with each chain of equations as its first and last side, or as the last alone if that is
    what the first one comes to; None if two sides are different numbers."""
    if "=" not in answer or _RELATION.search(answer):
        return answer
    steps = [step for step in _THEN.split(answer) if step.strip()]
    conclusion = steps[-1] if all("=" in step for step in steps) else answer
    parts = [_settled(part) for part in pieces(_AND_OR.sub(", ", conclusion), ",;")]
    known = [part for part in parts if part is not None]
    return ", ".join(known) if len(known) == len(parts) else None


def _unsolved(answer: str, gold: str) -> bool:
    """Whether the answer is an equation in unknowns while the gold answer is none or gives a name a number, or the gold
    answer is one while the answer has none."""
    found, expected = _equations(answer), _equations(gold)
    if any(name is None for name, _ in found):
        return not any(name is None or _VARIABLE.search(right) for name, right in expected)
    return not found and any(name is None for name, _ in expected)


def _without_names(gold: str, answer: str) -> tuple[str, str]:
    """The values of `x = 5` and `x = 5`, or of `x = 5` beside `5`; values of different names as they are."""
    equations = [_equations(text) for text in (gold, answer)]
    names = {re.sub(r"[{}\s]", "", name or "(") for sides in equations for name, _ in sides}
    if len(names) != 1 or names.pop().startswith("(") or any(len(pieces(text, ",;")) > 1 for text in (gold, answer)):
        return gold, answer
    one, other = (sides[0][1] if sides else text for sides, text in zip(equations, (gold, answer), strict=True))
    return one, other


def _settled(part: str) -> str | None:
    sides = [side for side in pieces(part, "=") if side]
    if len(sides) < 2:
        return "".join(sides)
    first, *others = _without_words(sides[0]), *sides[1:]
    if len(others) == 1 and _named(others[0]) and not _named(first):
        first, *others = *others, first
    named = _named(first)
    values = others if named else [first, *others]
    numbers = [_number(side) for side in values] if len(values) > 1 else []
    if any(_contradict(*pair) for pair in pairwise(zip(values, numbers, strict=False))):
        return None
    last = others[-1]
    if named or not (None not in numbers or is_operation(first) or equal(f"\\boxed{{{first}}}", f"\\boxed{{{last}}}")):
        return f"{first} = {last}"
    return last


def _without_words(side: str) -> str:
    r"""The name in `\text{The line is } y`."""
    name = _WORDS.sub("", side)
    return name if name and _named(name) else side


def _number(side: str) -> float | None:
    bare = side.removesuffix("%").removesuffix("\\")
    number = value(split_unit(bare)[0])
    return number / 100 if number is not None and bare != side else number


def _contradict(one: tuple[str, float | None], other: tuple[str, float | None]) -> bool:
    (text, number), (other_text, other_number) = one, other
    if number is None or other_number is None or abs(number - other_number) <= _SAME * abs(number):
        return False
    return not (
        is_rounding(number, other_number, split_unit(other_text)[0])
        or is_rounding(other_number, number, split_unit(text)[0])
    )


def _equations(text: str) -> list[tuple[str | None, str]]:
    """Name (None if the left side is none) and right side of each equation in the list that `text` is."""
    if "=" not in text or _RELATION.search(text):
        return []
    braces = _BRACES.fullmatch(_SIZES.sub("", text).strip())
    parts = [pieces(part, "=") for part in pieces(braces.group(1) if braces else text, ",;")]
    return [(sides[0] if _named(sides[0]) else None, sides[-1]) for sides in parts if len(sides) > 1]


def _named(side: str) -> bool:
    return is_name(_SIZES.sub("", side))
