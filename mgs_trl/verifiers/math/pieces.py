"""Taking a list apart: `1, (2,3)` is `1` and `(2,3)`."""

from __future__ import annotations

_OPEN, _CLOSE = "([{", ")]}"


def pieces(text: str, separators: str = ",") -> list[str]:
    """What stands between the separators that are outside all brackets."""
    found, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
        elif depth == 0 and character in separators:
            found.append(text[start:index].strip())
            start = index + 1
    return [*found, text[start:].strip()]


def depth(text: str) -> int:
    """How deep the brackets are nested."""
    deepest = current = 0
    for character in text:
        if character in _OPEN:
            current += 1
            deepest = max(deepest, current)
        elif character in _CLOSE:
            current = max(0, current - 1)
    return deepest


def repetitions(text: str) -> int:
    """How many values of a list stand in it already: 1 for `5,5`, which math-verify takes for the set of 5. None are
    counted in `x=5,x=5`, a double root."""
    parts = [part.replace(" ", "") for part in pieces(text, ",;") if "=" not in part]
    return len(parts) - len(set(parts))


def as_terms(text: str) -> str:
    """A ratio of three terms or more, `1:2:3`, as a tuple: math-verify divides, so that `1:3:2` would be the same.
    Of `a:b:c=1:2:3` the second."""
    terms = pieces(text.rpartition("=")[2], ":")
    return f"({','.join(terms)})" if len(terms) > 2 and all(terms) else text
