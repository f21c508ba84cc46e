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
