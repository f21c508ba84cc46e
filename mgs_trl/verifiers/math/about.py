r"""Approximations: `x \approx 3.14` is 3.14, and `25\pi \approx 78.54` is both, an answer and its rounding."""

from __future__ import annotations

import re

from mgs_trl.verifiers.math.equal import value
from mgs_trl.verifiers.math.pieces import pieces
from mgs_trl.verifiers.math.text import clean, last_place
from mgs_trl.verifiers.math.units import split_unit

_ABOUT = re.compile(r"\\(?:approx|simeq|thickapprox|doteq)(?![A-Za-z])")
_NAMED = re.compile(r"\s*([A-Za-z](?:_\{?\w+\}?)?)\s*=")
_CLOSE = 0.02  # relative; 2/3 and 0.7 are too far apart to be one answer


def readings(answer: str) -> list[str]:
    r"""What an answer with `\approx` says, before and after it; the answer itself without one. Nothing if one side is
    no rounding of the other: who writes `5 \approx 6` has not decided."""
    text = clean(answer)
    if not _ABOUT.search(text):
        return [answer]
    sides = [_sides(piece) for piece in pieces(text)]
    known = [side for side in sides if side is not None]
    if len(known) < len(sides):
        return []
    exact, rounded = (",".join(side[index] for side in known) for index in (0, 1))
    return [exact] if exact == rounded else [exact, rounded]


def _sides(piece: str) -> tuple[str, str] | None:
    """The answers before and after the sign, the same one twice where there is only one."""
    left, *others = (side.strip() for side in _ABOUT.split(piece))
    if not others:
        return left, left
    right = others[0]
    if len(others) > 1 or not right:
        return None
    if not left:
        return right, right
    bare_left, bare_right = (_bare(side) for side in (left, right))
    exact, rounded = value(bare_left), value(bare_right)
    if exact is None:
        return f"{left} = {right}", f"{left} = {right}"
    if rounded is None or not (is_rounding(exact, rounded, bare_right) or is_rounding(rounded, exact, bare_left)):
        return None
    named = _NAMED.match(left)
    right = f"{named.group(1)} = {right}" if named else right
    return (left, right) if abs(exact - rounded) <= _CLOSE * abs(exact) else (right, right)


def _bare(side: str) -> str:
    """The last value of a chain of equations, without its unit."""
    return split_unit(side.rpartition("=")[2])[0]


def is_rounding(exact: float, rounded: float, text: str) -> bool:
    """Whether `rounded`, written as `text`, is `exact` rounded or cut off at the last place that it has."""
    place = last_place(text)
    if place is None:
        return False
    gap = abs(exact - rounded)
    return gap <= place * 0.5000001 or (abs(rounded) < abs(exact) and gap < place)
