r"""Inequalities with the least bound first; those joined by "and" or "or" as intervals: `x<2\text{ or }x>3` is
`(-\infty,2)\cup(3,\infty)`."""

from __future__ import annotations

import re

_LESS, _MORE = r"<|\\l(?:eq?|eqslant|t)(?![A-Za-z])", r">|\\g(?:eq?|eqslant|t)(?![A-Za-z])"
_SIGN = re.compile(rf"\s*({_LESS}|{_MORE})\s*")
_JOINED = re.compile(
    r"\s*,?\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*,?\s*(and|or)\s*\}|(?<![\\A-Za-z])(and|or)(?![A-Za-z]))\s*"
)
_SET = re.compile(
    r"\s*(?:[A-Za-z]\s*\\in(?![A-Za-z])\s*)?[(\[].*\\infty|.*\\cup(?![A-Za-z])|\s*[(\[].*[)\]]\s*$", re.DOTALL
)
_TURNED = {">": "<", r"\gt": "<"}
_VARIABLE = re.compile(r"[A-Za-z]")

_Bounds = tuple[str, str | None, str | None]  # variable, "[2" or "(-3", "5)" or "8]"


def as_interval(answer: str, other: str) -> str:
    """The answer as intervals, if it is joined inequalities and `other` is an interval; else as it is."""
    if not _SET.match(other):
        return answer
    pieces = _JOINED.split(answer)
    words = {word for word in pieces[1::3] + pieces[2::3] if word}
    bounds = [_bounds(piece) for piece in pieces[::3]]
    known = [bound for bound in bounds if bound is not None]
    if len(words) != 1 or len(known) < len(bounds) or len({variable for variable, *_ in known}) > 1:
        return answer
    if words == {"and"}:
        return _meet(known) or answer
    return r"\cup".join(_interval(below, above) for _, below, above in known)


def ascending(answer: str) -> str:
    r"""A chain of bounds with the least first, as math-verify compares them: `3 > x \ge 1` as `1 \le x < 3`."""
    parts = _SIGN.split(answer.strip())
    several = "," in answer or _JOINED.search(answer)
    if several or len(parts) < 5 or not all(parts) or not all(re.fullmatch(_MORE, sign) for sign in parts[1::2]):
        return answer
    return " ".join(part if index % 2 == 0 else _TURNED.get(part, r"\le") for index, part in enumerate(parts[::-1]))


def _bounds(inequality: str) -> _Bounds | None:
    """The bounds in "x < 2", "3 >= x" or "1 < x < 2"."""
    values = _SIGN.split(inequality.strip())
    at = [index for index, value in enumerate(values) if index % 2 == 0 and _VARIABLE.fullmatch(value)]
    if len(at) != 1 or len(values) not in (3, 5) or (len(values) == 5 and at != [2]) or not all(values):
        return None
    below = above = None
    for index, value in enumerate(values):
        if index % 2 or index == at[0]:
            continue
        sign = values[(index + at[0]) // 2]
        strict = sign in ("<", ">", r"\lt", r"\gt")
        if (re.fullmatch(_LESS, sign) is not None) == (index < at[0]):
            below = ("(" if strict else "[") + value
        else:
            above = value + (")" if strict else "]")
    return (values[at[0]], below, above)


def _meet(bounds: list[_Bounds]) -> str | None:
    below = [lower for _, lower, _ in bounds if lower]
    above = [upper for _, _, upper in bounds if upper]
    return _interval(below[0], above[0]) if len(below) == len(above) == 1 else None


def _interval(below: str | None, above: str | None) -> str:
    return ",".join((below or r"(-\infty", above or r"\infty)"))
