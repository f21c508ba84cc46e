r"""Whether an answer agrees with the gold one.

They are compared as text first, then as a multiple-choice letter (choice.py), then without units
(units.py) as a number or as mathematics (equal.py).
"""

from __future__ import annotations

import re
from fractions import Fraction

from mgs_trl.verifiers.math.about import readings
from mgs_trl.verifiers.math.choice import boxed_choice, is_choice, same_choice
from mgs_trl.verifiers.math.equal import equal
from mgs_trl.verifiers.math.equations import concluded
from mgs_trl.verifiers.math.intervals import as_interval, ascending
from mgs_trl.verifiers.math.order import in_order, mix_sets_with_tuples
from mgs_trl.verifiers.math.pieces import as_terms, repetitions
from mgs_trl.verifiers.math.reading import deleted, interpretations, is_task, readable, without_unit_text
from mgs_trl.verifiers.math.signs import both_signs
from mgs_trl.verifiers.math.systems import aligned
from mgs_trl.verifiers.math.text import clean, has_loose_digits, normalise, number, same_in_base, same_words
from mgs_trl.verifiers.math.units import keep_variables, same_unit, split_unit

LONGEST = 2500  # characters that math-verify is given; over more it may sit for seconds

_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:percent|%|\\%)\s*\}|percent)\s*$")
_MIXED = re.compile(r"(?<![\d.,/]) *(\d+) (\d+) ?/ ?(\d+)(?![\d.])")
_SENTENCES = re.compile(r"(?:\n|[.!?] )[A-Z][a-z]|[Aa]nswer(?: is\b|:)")
_WORDS = re.compile(r"[A-Za-z',-]+")
_CONSTANT, _SMALL_CONSTANT = re.compile(r"\+\s*C$"), re.compile(r"\+\s*c$")  # of integration
_CLOSE = Fraction(1, 10**6)  # relative; math-verify rounds to six decimals, for which 0.00001 is 0.00002


def agrees(gold: str, answer: str) -> bool:
    """Whether the answers are the same, or `answer` is where math-verify looks for one in a gold answer of
    sentences."""
    if normalise(gold) == normalise(answer):
        return True
    if any(_same(one, other) for other in readings(answer) for one in readings(gold) or [gold]):
        return True
    return has_sentences(gold) and equal(gold, boxed(answer))


def has_sentences(gold: str) -> bool:
    """Whether the gold answer is a text in which math-verify has to look for the answer."""
    return _SENTENCES.search(gold) is not None


def boxed(content: str) -> str:
    r"""A text that math-verify reads from end to end."""
    return f"\\boxed{{{content}}}"


def comparable(gold: str, answer: str) -> bool:
    """Whether the answer is of a kind that can be the gold answer: no equation in unknowns and nothing to be worked out
    beside a value."""
    return _compared(gold, answer) is not None


def _compared(gold: str, answer: str) -> tuple[str, str] | None:
    compared = concluded(clean(gold), clean(answer))
    return None if compared is None or (is_task(compared[1]) and not is_task(compared[0])) else compared


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
    if (compared := _compared(gold, answer)) is None:
        return False
    gold, answer = compared
    (gold, unit), (answer, other) = split_unit(gold), split_unit(answer)
    if unit is not None and other is not None and not same_unit(unit, other):
        return False
    bare_gold, bare_answer = _PERCENT.sub("", gold), _PERCENT.sub("", answer)
    if (unit is not None and bare_answer != answer) or (other is not None and bare_gold != gold):
        return False
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
    """Both without a unit that nobody knows."""
    return [without_unit_text(clean(text)) for text in (gold, answer)]


def _same_mathematics(gold: str, answer: str) -> bool:
    gold, answer = clean(gold), clean(answer)
    if _CONSTANT.search(gold):
        answer = _SMALL_CONSTANT.sub("+C", answer)
    gold, answer = as_interval(ascending(gold), answer), as_interval(ascending(answer), gold)
    expected, found = (readable(keep_variables(_MIXED.sub(r"\1\\frac{\2}{\3}", text))) for text in (gold, answer))
    if expected is None or found is None or has_loose_digits(expected) or has_loose_digits(found):
        return False
    if deleted(expected) != deleted(found) or max(len(expected), len(found)) > LONGEST:
        return False
    expected, found = aligned(both_signs(expected), both_signs(found))
    expected, found = as_terms(expected), as_terms(found)
    expected, found = in_order(expected, found)
    if mix_sets_with_tuples(expected, found):
        return False
    if repetitions(expected) != repetitions(found):
        return False
    return any(equal(boxed(one), boxed(other)) for one, other in interpretations(expected, found))
