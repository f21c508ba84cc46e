"""Multiple-choice answers: a letter A to J, in a box, said in a sentence, or alone on the last line."""

from __future__ import annotations

import re

from mgs_trl.verifiers.math.text import clean, normalise, unwrapped

_GOLD = re.compile(r"[\(\[]?([A-J])[\)\].:]?")
_MARKUP = re.compile(r"[$*_`]+|\\[()\[\]]")

_LABEL = r"(?:(?i:the\s+)?(?i:correct\s+|final\s+)?(?i:answer|option|choice)(?i:\s+is)?\s*:?\s*)?"
_IN_PARENTHESES = r"[\(\[]\s*([A-Ja-j])\s*[\)\]]"
_MORE = r"(?!\s*(?:,|/|&|;|(?i:or|and)\b))"  # "A or B" is no choice
_DASH = r"(?:(?:-{1,3}|—)\s+(?![A-J]\b))?"
_TEXT = rf"\s+{_DASH}(?:[A-Za-z0-9]|\\(?!cdot|times|div|pm))"  # of the option that the letter labels
_BOXED = re.compile(rf"{_LABEL}(?:{_IN_PARENTHESES}|([A-J])(?:[\)\].:]|\s*$|(?={_TEXT}))){_MORE}")
_ALONE = re.compile(rf"(?:{_IN_PARENTHESES}|([A-J])(?:[\)\].:](?![A-Za-z0-9])|\s*$)){_MORE}")

# What follows the letter and makes it one of several, or none. "(A) I" may be the numeral.
_OTHER_LABEL = re.compile(r"(?<![A-Za-z0-9])(?:[(\[]\s*[A-J]\s*[)\]]|(?<![(\[])[A-J][).:](?![A-Za-z0-9]))")
_ONLY_LETTERS = re.compile(r"(?:[^A-Za-z0-9]*[A-HJ](?![A-Za-z0-9]))+[^A-Za-z0-9]*")
_DENIED = re.compile(r"\s*(?:(?:is|was)\s+(?:wrong|incorrect|not|false)\b|(?:is|was)n['’]t\b|(?:nor|vs|versus)\b)")
_BARE_DENIED = re.compile(r"\s+(?:not|to|but|through|rather)\b")
_RELATION = re.compile(
    r"\s*(?:[|<>≠→]|\\(?:neq?|l(?:eq?|t)|g(?:eq?|t)|to|mid|iff|implies|equiv|approx|sim|cong|in|notin|cup|cap|vee|wedge|lor"
    r"|land|mp|setminus|(?:sub|sup)set(?:eq)?|(?:long)?(?:left|right|leftright)arrow|(?:Left|Right|Leftright)arrow)(?![A-Za-z]))"
)

_ANOTHER = re.compile(
    r"[)\]]?[ \t]*(?:[,;/|&]|(?i:or|and|nor|versus|vs|to)\b\.?|\\(?:ne|neq|to)\b)*[ \t]*"
    r"(?:[(\[]\s*[A-J]\s*[)\]]|[A-J](?=\W*$|[ \t]*(?:[,;/|&.]|or\b|and\b|[A-J]\b)))",
    re.MULTILINE,
)

_END = r"(?![A-Za-z0-9'’])"
# "A" and "I" begin sentences, so that a word must not follow them.
_SAID = (
    rf"[^A-Za-z\n]{{0,10}}?(?:{_IN_PARENTHESES}|([B-HJ]){_END}|([AI]){_END}(?!\s+(?!because|since|as\b)[A-Za-z]))"
    r"(?!\W{0,3}\s(?i:is|was|are)\s+(?i:wrong|incorrect|not|false)\b)"
)
_ANSWER_IS = r"(?i:answer)[^A-Za-z\n]{0,10}(?:(?i:is)\b|(?![A-Za-z]))[^A-Za-z\n]{0,3}(?:(?i:option|choice)\b)?"
_ANSWER_SAID = re.compile(_ANSWER_IS + _SAID)
_OPTION_SAID = re.compile(rf"(?i:option|choice)(?:\s+(?i:is)\b)?{_SAID}")


def is_choice(gold: str) -> bool:
    """Whether the gold answer is one letter A to J: "B", "(B)"."""
    return _GOLD.fullmatch(normalise(gold)) is not None


def boxed_choice(answer: str) -> str | None:
    """The letter that the answer in a box names: "(B)", "B. red", "Option B", "(b)"; None without one or with
    several."""
    return _only_letter(_BOXED, _MARKUP.sub("", clean(unwrapped(clean(answer)))).strip())


def said_choice(text: str) -> str | None:
    """The letter named without a box: by the last "answer is B", else by the last "option B" that is not called
    wrong, else by the last line if it is the letter alone or its start ("B", "(B) red", "B. red")."""
    text = _MARKUP.sub("", unwrapped(text)).strip()
    for pattern in (_ANSWER_SAID, _OPTION_SAID):
        said = list(pattern.finditer(text))
        if said:
            return None if _ANOTHER.match(text, said[-1].end()) else _letter(said[-1])
    return _only_letter(_ALONE, text.splitlines()[-1].strip()) if text else None


def same_choice(gold: str, chosen: str | None) -> bool:
    """Whether `chosen` is the gold letter."""
    letter = _GOLD.fullmatch(normalise(gold))
    return letter is not None and letter.group(1) == chosen


def _only_letter(pattern: re.Pattern[str], text: str) -> str | None:
    """The letter that `text` begins with, unless what follows takes it back or names another."""
    match = pattern.match(text)
    if match is None:
        return None
    rest = text[match.end() :]
    takes_back = (
        _OTHER_LABEL.search(rest) or _ONLY_LETTERS.fullmatch(rest) or _DENIED.match(rest) or _RELATION.match(rest)
    )
    if takes_back or (match.group()[-1:].isalpha() and _BARE_DENIED.match(rest)):
        return None
    return _letter(match)


def _letter(match: re.Match[str] | None) -> str | None:
    return next(group for group in match.groups() if group).upper() if match else None
