r"""Judging a mathematical answer; runs in a worker process, imports math-verify there.

The answer is the last `\boxed{...}`. It is compared with the gold answer as text first, then as a
multiple-choice letter (math_choice.py), then without units (math_units.py) as a number or as mathematics
(math_equal.py).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

from mgs_trl.verifiers.math_choice import boxed_choice, is_choice, said_choice, same_choice
from mgs_trl.verifiers.math_equal import equal, warm_up
from mgs_trl.verifiers.math_intervals import as_interval
from mgs_trl.verifiers.math_reading import imaginary_readings, primes, readable, without_unit_text, without_wrappers
from mgs_trl.verifiers.math_text import clean, has_loose_digits, normalise, number, same_in_base, same_words
from mgs_trl.verifiers.math_units import keep_variables, same_unit, split_unit

__all__ = ["BOXES", "Fallback", "judge", "last_boxed", "normalise", "warm_up"]  # a worker calls warm_up

Fallback = Literal["none", "text", "last_line"]

BOXES = ("\\boxed", "\\fbox")
TAIL = 4096  # characters at the end of a completion in which an unboxed answer is looked for
LONGEST_ANSWER = 2000  # characters; a longer box holds no answer but an essay
MOST_BOXES = 64
MOST_SPACE = 16  # characters between a box and its brace

_BARE = re.compile(r"(?:[^\s${}\\.,;]|(?<=\d)[.,](?=\d)){1,100}")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:percent|%|\\%)\s*\}|percent)\s*$")
_MIXED = re.compile(r"(?<![\d.,/]) *(\d+) (\d+) ?/ ?(\d+)(?![\d.])")
_ANSWER = re.compile(r"(?i:answer)(?:[ *_]*(?i:is\b)[ *_]*:?|[ *_]*[:=])((?:(?!\.\s|\.$)[^\n]){1,200})")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_SENTENCES = re.compile(r"(?:\n|[.!?] )[A-Z][a-z]|[Aa]nswer(?: is\b|:)")
_WORDS = re.compile(r"[A-Za-z',-]+")
_ASSIGNED = re.compile(r"([A-Za-z](?:_\{?\w+\}?)?)\s*=\s*")
_MATHEMATICS = re.compile(r"[\d\\$]")
_REASON = re.compile(r"[\s,;*_]+(?:because|since|as|for)\b")
_CLOSE = Fraction(1, 10**6)  # relative; math-verify rounds to six decimals, for which 0.00001 is 0.00002


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
        return float(bool(answer) and _agrees(gold, answer))
    tail = text[-TAIL:].strip()
    if fallback == "none" or not tail:
        return 0.0
    if fallback == "last_line":
        tail = tail.splitlines()[-1]
    if is_choice(gold):
        return float(same_choice(gold, said_choice(tail)))
    return float(normalise(tail) == normalise(gold) or _said(gold, tail))


def _after_solution(gold: str) -> str:
    """What GSM8K's solutions give after "####"; other golds as they are."""
    *solution, last = gold.rsplit("####", 1)
    return (last.strip().splitlines() or [gold])[0] if solution else gold


def _agrees(gold: str, answer: str) -> bool:
    """Whether the answers are the same, or `answer` is where math-verify looks for one in a gold answer of
    sentences."""
    return _same(gold, answer) or (_SENTENCES.search(gold) is not None and equal(gold, _boxed(answer)))


def _said(gold: str, tail: str) -> bool:
    """Whether `tail` says the gold answer: in the last "answer is ...", else wherever math-verify finds one after
    that."""
    expected = gold if _SENTENCES.search(gold) else _boxed(gold)
    said = [(match.start(), match.group(1).strip(" *_:")) for match in _ANSWER.finditer(tail)]
    if _MATHEMATICS.search(gold):  # "I hope the answer is helpful" is no answer to it
        said = [(start, answer) for start, answer in said if not answer or _MATHEMATICS.search(answer)] or said
    if not said:
        return equal(expected, tail)
    start, answer = said[-1]
    reason = _REASON.search(answer)
    if reason and number(answer[: reason.start()]) is not None:
        answer = answer[: reason.start()]
    if _agrees(gold, answer):
        return True
    if answer and (split_unit(answer)[1] is not None or not _PROSE.search(without_wrappers(answer))):
        return False  # of "5x" math-verify would take the 5
    return equal(expected, tail[start:])


def _same(gold: str, answer: str) -> bool:
    """Equality as text, as a choice, as numbers with units, or as mathematics; 50% is both 50 and 1/2, except to
    another percentage."""
    texts = normalise(gold), normalise(answer)
    if texts[0] == texts[1]:
        return True
    if is_choice(gold):
        return same_choice(gold, boxed_choice(answer))
    if all(map(_WORDS.fullmatch, texts)) and texts[0].lower() == texts[1].lower():
        return same_words(gold, answer)
    if (same := same_in_base(gold, answer)) is not None:
        return same
    (gold, unit), (answer, other) = split_unit(gold), split_unit(answer)
    if unit is not None and other is not None and not same_unit(unit, other):
        return False
    bare_gold, bare_answer = _PERCENT.sub("", gold), _PERCENT.sub("", answer)
    if _same_value(bare_gold, bare_answer):
        return True
    if (bare_gold == gold) == (bare_answer == answer):
        return False
    if bare_gold != gold:
        return _same_mathematics(f"\\frac{{{bare_gold}}}{{100}}", answer)
    return _same_mathematics(gold, f"\\frac{{{bare_answer}}}{{100}}")


def _same_value(gold: str, answer: str) -> bool:
    """Equality of plain numbers by their exact values where these settle it, of anything else by math-verify."""
    expected, found = (number(text) for text in _bare_numbers(gold, answer))
    if expected is not None and found is not None:
        if expected == found:
            return True
        if abs(expected - found) > _CLOSE * abs(expected):
            return False
    return _same_mathematics(gold, answer)


def _bare_numbers(gold: str, answer: str) -> list[str]:
    """Both without a unit that nobody knows and, unless they name different variables, without "x ="."""
    texts = [without_unit_text(clean(text)) for text in (gold, answer)]
    names = {match.group(1) for text in texts if (match := _ASSIGNED.match(text))}
    return texts if len(names) > 1 else [_ASSIGNED.sub("", text) for text in texts]


def _same_mathematics(gold: str, answer: str) -> bool:
    gold, answer = clean(gold), clean(answer)
    gold, answer = as_interval(gold, answer), as_interval(answer, gold)
    expected, found = (readable(keep_variables(_MIXED.sub(r"\1\\frac{\2}{\3}", text))) for text in (gold, answer))
    if expected is None or found is None or has_loose_digits(expected) or has_loose_digits(found):
        return False
    if primes(expected) != primes(found):
        return False
    return any(equal(_boxed(one), _boxed(other)) for one, other in imaginary_readings(expected, found))


def _boxed(content: str) -> str:
    return f"\\boxed{{{content}}}"
