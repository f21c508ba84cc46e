r"""Judging a mathematical answer; runs in a worker process, imports math-verify there.

The answer is the last `\boxed{...}`. It is compared with the gold answer as text first, then as a
multiple-choice letter, then as mathematics by math-verify, whose own time limit is off: it needs a main
thread and does not hold (the pool's does).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Fallback = Literal["none", "text", "last_line"]

BOXES = ("\\boxed", "\\fbox")
TAIL = 4096  # characters at the end of a completion in which an unboxed answer is looked for
LONGEST_ANSWER = 2000  # characters; a longer box holds no answer but an essay
MOST_BOXES = 64

_BARE = re.compile(r"[^\s${}\\.,;]{1,100}")

_CHOICE = re.compile(r"[\(\[]?([A-Za-z])[\)\].:]?")
_CHOICE_TEXT = re.compile(r"[\(\[]?([A-J])(?:[\)\].:,]|\s*$|\s+\S)")
_CHOICE_SAID = re.compile(r"(?i:answer|option|choice)[^A-Za-z\n]{0,10}(?:is[^A-Za-z\n]{0,10})?([A-J])(?![A-Za-z])")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:percent|%|\\%)\s*\}|percent)\s*$")
_WRAPPERS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|textit|mbox)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\[,;:! ]|\\(?:left|right|big|Big|bigg|Bigg|displaystyle|quad|qquad)(?![A-Za-z])|[\s~$]+")


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}` (or `\fbox`, or `\boxed 5`), braces matched; None
    without one.

    Only the last `MOST_BOXES` openings are tried, each over `LONGEST_ANSWER` characters: linear, whatever
    the text.
    """
    end = len(text)
    for _ in range(MOST_BOXES):
        start = max(text.rfind(box, 0, end) for box in BOXES)
        if start < 0:
            return None
        content = _box_content(text, start)
        if content is not None:
            return content
        end = start
    return None


def _box_content(text: str, start: int) -> str | None:
    position = start + next(len(box) for box in BOXES if text.startswith(box, start))
    while text.startswith(" ", position):
        position += 1
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


def normalise(answer: str) -> str:
    """The answer without text wrappers, spacing commands, dollar signs and a final full stop."""
    return _SPACING.sub("", _WRAPPERS.sub(r"\1", answer.strip())).rstrip(".")


def same_choice(gold: str, answer: str) -> bool | None:
    """For a gold answer that is one letter A to J: whether `answer` names it ("(B)", "B. red"); None if
    gold is none."""
    letter = _CHOICE.fullmatch(normalise(gold))
    if letter is None or letter.group(1) not in "ABCDEFGHIJ":
        return None
    chosen = _CHOICE_TEXT.match(_WRAPPERS.sub(r"\1", answer).strip(" $*"))
    return chosen is not None and chosen.group(1) == letter.group(1)


def judge(text: str, gold: str, fallback: Fallback = "text") -> float:
    """1.0 if the answer in `text` equals `gold`, else 0.0. `fallback`: where to look without a boxed
    answer."""
    gold = last_boxed(gold) or gold
    answer = last_boxed(text)
    if answer is not None:
        return float(bool(answer) and _same(gold, answer))
    tail = text[-TAIL:].strip()
    if fallback == "none" or not tail:
        return 0.0
    last_line = tail.splitlines()[-1]
    if fallback == "last_line":
        tail = last_line
    if same_choice(gold, gold):
        said = _CHOICE_SAID.findall(tail)
        return float(bool(same_choice(gold, said[-1] if said else last_line)))
    return float(normalise(tail) == normalise(gold) or _equal(_boxed(gold), tail))


def _same(gold: str, answer: str) -> bool:
    """Equality as text, as a choice, or as mathematics; 50% is both 50 and 1/2, except to another
    percentage."""
    if normalise(answer) == normalise(gold):
        return True
    choice = same_choice(gold, answer)
    if choice is not None:
        return choice
    bare_gold, bare_answer = _PERCENT.sub("", gold), _PERCENT.sub("", answer)
    if _equal(_boxed(bare_gold), _boxed(bare_answer)):
        return True
    if (bare_gold == gold) == (bare_answer == answer):
        return False
    if bare_gold != gold:
        return _equal(_boxed(f"\\frac{{{bare_gold}}}{{100}}"), _boxed(answer))
    return _equal(_boxed(gold), _boxed(f"\\frac{{{bare_answer}}}{{100}}"))


def _boxed(content: str) -> str:
    return f"\\boxed{{{content}}}"


@lru_cache(maxsize=1024)  # completions of one prompt often end in the same wrong answer
def _equal(gold: str, prediction: str) -> bool:
    from math_verify import parse, verify

    expected = parse(gold, parsing_timeout=None)  # pyright: ignore[reportArgumentType]
    found = parse(prediction, parsing_timeout=None)  # pyright: ignore[reportArgumentType]
    return verify(expected, found, timeout_seconds=None)


def warm_up() -> None:
    """Import math-verify and build its grammar before the first sample's clock runs."""
    import logging

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns per sample that its own limit is off
    judge("\\boxed{\\frac{1}{2}}", "0.5")
