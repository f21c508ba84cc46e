r"""The last box of a text: the answer of a completion, the gold answer of a solution.

Both are read by this one function; `verifiers` and `domains`, which do not import each other, import it.
"""

from __future__ import annotations

import re

BOXES = ("\\boxed", "\\fbox")
LONGEST_ANSWER = 2000  # characters; a longer box holds no answer but an essay
MOST_BOXES = 64
MOST_SPACE = 16  # characters between a box and its brace

_OPEN = re.compile(r"\\(?:boxed|fbox)\s{0,16}\{")
_BARE = re.compile(r"(?:[^\s${}\\.,;]|(?<=\d)[.,](?=\d)){1,100}")


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}` (or `\fbox`, or `\boxed 5`) that is not empty, braces
    matched; "" if all are empty, None without one.

    Only the last `MOST_BOXES` openings are tried, each over `LONGEST_ANSWER` characters: linear, whatever
    the text.
    """
    end, found = len(text), None
    for _ in range(MOST_BOXES):
        start = max(text.rfind(box, 0, end) for box in BOXES)
        if start < 0:
            break
        content = _box_content(text, start)
        if content:
            return content
        found = found if content is None else content
        end = start
    return found


def has_open_box(text: str) -> bool:
    """Whether a box begins with a brace that closes too late or never: what it holds was cut off."""
    return _OPEN.search(text) is not None


def _box_content(text: str, start: int) -> str | None:
    position = start + next(len(box) for box in BOXES if text.startswith(box, start))
    gap = text[position : position + MOST_SPACE]
    position += len(gap) - len(gap.lstrip())
    if not text.startswith("{", position):
        bare = _BARE.match(text, position)
        return bare.group() if bare else None
    depth, index, end = 0, position, min(len(text), position + LONGEST_ANSWER)
    while index < end:
        character = text[index]
        if character == "\\":
            index += 1  # an escaped brace is no brace
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[position + 1 : index].strip()
        index += 1
    return None
