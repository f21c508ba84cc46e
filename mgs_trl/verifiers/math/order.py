r"""What has an order and what has none: math-verify takes `(1,2)`, `\{2,1\}` and `2,1` for each other."""

from __future__ import annotations

import re

from mgs_trl.verifiers.math.pieces import pieces

_SIZES = re.compile(r"\\(?:left|right)(?![A-Za-z])\s*")
_SET = re.compile(r"\\\{(.*)\\\}", re.DOTALL)
_TUPLE = re.compile(r"\((.*)\)", re.DOTALL)


def in_order(gold: str, answer: str) -> tuple[str, str]:
    """Both, a list without brackets beside one tuple as the tuple of its values."""
    if _parts(_TUPLE, answer) and _is_list(gold):
        return f"({gold})", answer
    if _parts(_TUPLE, gold) and _is_list(answer):
        return gold, f"({answer})"
    return gold, answer


def mix_sets_with_tuples(gold: str, answer: str) -> bool:
    """Whether all that one lists is sets and all that the other lists is tuples, each of two values or more."""
    kinds = {_kind(gold), _kind(answer)}
    return kinds == {_SET, _TUPLE}


def _kind(text: str) -> re.Pattern[str] | None:
    """Of which brackets the listed values are, or those in a set; None if of none, or of several kinds."""
    values = pieces(text)
    if len(values) == 1 and (inner := _parts(_SET, text)):
        listed = {_bracket(value) for value in inner}
        return listed.pop() if len(listed) == 1 and None not in listed else _SET
    listed = {_bracket(value) for value in values}
    return listed.pop() if len(listed) == 1 else None


def _bracket(value: str) -> re.Pattern[str] | None:
    return next((bracket for bracket in (_SET, _TUPLE) if _parts(bracket, value)), None)


def _parts(bracket: re.Pattern[str], text: str) -> list[str]:
    """The values in the one bracket that the text is, if they are two or more."""
    found = bracket.fullmatch(_SIZES.sub("", text).strip())
    values = pieces(found.group(1)) if found and len(pieces(text)) == 1 else []
    return values if len(values) > 1 else []


def _is_list(text: str) -> bool:
    return len(pieces(text)) > 1 and _kind(text) is None
