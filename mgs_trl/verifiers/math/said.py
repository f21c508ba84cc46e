"""The answer of a text without a box: in `<answer>...</answer>`, else in the last "answer is ...", else wherever
math-verify finds one."""

from __future__ import annotations

import re

from mgs_trl.verifiers.math.agree import agrees, boxed, comparable, has_sentences
from mgs_trl.verifiers.math.choice import boxed_choice, is_choice, said_choice, same_choice
from mgs_trl.verifiers.math.equal import equal, found_text
from mgs_trl.verifiers.math.pieces import depth
from mgs_trl.verifiers.math.reading import without_wrappers
from mgs_trl.verifiers.math.text import normalise, number
from mgs_trl.verifiers.math.units import split_unit
from mgs_trl.verifiers.math.words import changes_next_number, changes_number

TAIL = 4096  # characters at the end of a completion in which an unboxed answer is looked for
DEEPEST = 20  # brackets in each other; math-verify takes seconds for more, and no answer has them

_END_MARK = re.compile(r"(?:</\w{1,40}>|<[|｜][^<>|｜\n]{1,60}[|｜]>|<(?:eos|end_of_turn|pad)>)$")
_TAG, _CLOSED = "<answer>", "</answer>"
_DENIAL = r"(?:[a-z]{2,6}n['’]t|(?:is|was|can|could|does|would|will|should|may|might)\s+not|cannot|never)\b"
_ANSWER = re.compile(
    rf"(?i:answer)(?:[ *_]*(?:(?i:(?:is|was)\b(?!\s+not\b))|(?=(?i:{_DENIAL})))[ *_]*:?|[ *_]*[:=])"
    r"((?:(?!\.\s|\.$)[^\n]){1,200})"
)
_NEGATED = re.compile(
    r"[^\d\\$=]{0,40}?(?:\b(?:not|never|cannot|neither)\b|n['’]t\b)(?=[^\d\\$,;]*[\d\\$])", re.IGNORECASE
)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_MATHEMATICS = re.compile(r"[\d\\$]")
_REASON = re.compile(r"(?<!well)[\s,;*_]+(?:because|since|as(?!\s+well)|for|(?:(?:and|but)\s+)?not)\b")
_REMARK = re.compile(r"\s*\([^()A-Za-z]*[-+*/=×][^()A-Za-z]*\)\W*$")
_JOINED = re.compile(r"\$\s*(?:,?\s*(?:and|or)\b|,)\s*\$")
_FORMULA = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\[A-Za-z]+(?:\{[^{}]*\})+")
_EXPONENT = re.compile(r"\^\{?-?\d\}?")
_NUMBER = re.compile(r"(?<![A-Za-z_\d])\d+(?:[.,/:]\d+)*")
_DOUBT = re.compile(r"\W*(?:or|and|nor|to|maybe|perhaps|possibly)\b")


def says(text: str, gold: str, *, last_line: bool = False) -> bool:
    """Whether the end of `text` (its last line) says the gold answer."""
    tail = _without_end_marks(text[-TAIL:])
    if depth(tail) > DEEPEST:
        return False
    tagged = _tagged(tail)
    if tagged is not None and "\n" not in tagged:
        return _chosen(gold, tagged) if is_choice(gold) else bool(tagged) and _states(gold, tagged, tagged)
    tail = tagged or tail
    if not tail or tagged == "":
        return False
    tail = tail.splitlines()[-1] if last_line else tail
    if is_choice(gold):
        return same_choice(gold, said_choice(tail))
    return normalise(tail) == normalise(gold) or _said(gold, tail)


def _without_end_marks(tail: str) -> str:
    """The text without tokens that end a turn, and without closing tags at its end."""
    tail = tail.strip()
    while mark := _END_MARK.search(tail, max(0, len(tail) - 64)):
        tail = tail[: mark.start()].rstrip()
    return tail


def _tagged(tail: str) -> str | None:
    """What the last `<answer>` holds, to its end or to that of the text."""
    opened = tail.rfind(_TAG)
    return tail[opened + len(_TAG) :].partition(_CLOSED)[0].strip() if opened >= 0 else None


def _chosen(gold: str, answer: str) -> bool:
    return same_choice(gold, boxed_choice(answer) or said_choice(answer))


def _said(gold: str, tail: str) -> bool:
    said = [(match.start(), match.group(1).strip(" *_:")) for match in _ANSWER.finditer(tail)]
    if _MATHEMATICS.search(gold):  # "I hope the answer is helpful" is no answer to it
        said = [(start, answer) for start, answer in said if not answer or _MATHEMATICS.search(answer)] or said
    if not said:
        return _finds(gold, tail)
    start, answer = said[-1]
    return _states(gold, answer, tail[start:])


def _states(gold: str, answer: str, rest: str) -> bool:
    """Whether `answer`, or else what math-verify finds in `rest`, which begins with it, is the gold answer."""
    answer = _without_reason(answer)
    if any(agrees(gold, form) for form in {answer, _JOINED.sub(",", answer)}):
        return True
    if answer and (split_unit(answer)[1] is not None or not _PROSE.search(without_wrappers(answer))):
        return False  # of "5x" math-verify would take the 5
    if _MATHEMATICS.search(answer) and (_NEGATED.match(answer) or _is_undecided(answer)):
        return False
    return _finds(gold, rest)


def _finds(gold: str, text: str) -> bool:
    """Whether what math-verify finds in the text is the gold answer."""
    if has_sentences(gold):
        return equal(gold, text)
    return equal(boxed(gold), text) and comparable(gold, found_text(text))


def _without_reason(answer: str) -> str:
    """A number without what follows it as its reason: "because 2 + 3 is", "not 6", "(2+3)"."""
    for reason in (_REASON, _REMARK):
        found = reason.search(answer)
        if found and number(answer[: found.start()]) is not None:
            answer = answer[: found.start()]
    return answer


def _is_undecided(answer: str) -> bool:
    """Whether the answer has several numbers, or another than the one written: "5 or more", "at least 5"."""
    reason = _REASON.search(answer)
    answer = answer[: reason.start()] if reason else answer
    plain = _EXPONENT.sub("", _FORMULA.sub("0", answer)).rpartition("=")[2]
    numbers = list(_NUMBER.finditer(plain))
    if len(numbers) != 1:
        return len(numbers) > 1
    before, after = plain[: numbers[0].start()], plain[numbers[0].end() :]
    return _DOUBT.match(after) is not None or changes_number(after) or changes_next_number(before)
