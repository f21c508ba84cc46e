r"""Judging a mathematical answer; runs in a worker process, imports math-verify there.

The answer is the last `\boxed{...}` (math_agree.py compares it), or without a box what the text says
(math_said.py).
"""

from __future__ import annotations

import re
from typing import Literal

from mgs_trl.verifiers.math_agree import agrees
from mgs_trl.verifiers.math_equal import warm_up
from mgs_trl.verifiers.math_pieces import depth
from mgs_trl.verifiers.math_said import DEEPEST, says

__all__ = ["BOXES", "Fallback", "judge", "last_boxed", "warm_up"]  # a worker calls warm_up

Fallback = Literal["none", "text", "last_line"]

BOXES = ("\\boxed", "\\fbox")
LONGEST_ANSWER = 2000  # characters; a longer box holds no answer but an essay
MOST_BOXES = 64
MOST_SPACE = 16  # characters between a box and its brace

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


def _box_content(text: str, start: int) -> str | None:
    position = start + next(len(box) for box in BOXES if text.startswith(box, start))
    position += len(text[position : position + MOST_SPACE]) - len(text[position : position + MOST_SPACE].lstrip())
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


def judge(text: str, gold: str, fallback: Fallback = "text") -> float:
    """1.0 if the answer in `text` equals `gold`, else 0.0. `fallback`: where to look without a boxed
    answer."""
    gold = last_boxed(gold) or _after_solution(gold)
    answer = last_boxed(text)
    if answer is not None:
        return float(bool(answer) and depth(answer) <= DEEPEST and agrees(gold, answer))
    return float(fallback != "none" and says(text, gold, last_line=fallback == "last_line"))


def _after_solution(gold: str) -> str:
    """What GSM8K's solutions give after "####"; other golds as they are."""
    *solution, last = gold.rsplit("####", 1)
    return (last.strip().splitlines() or [gold])[0] if solution else gold
