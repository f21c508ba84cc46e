r"""Answers in a form that math-verify reads as a person does, or None for those that it would misread.

It deletes what follows the first `\text{` of a text that ends in a brace, and takes i for a variable or for the
imaginary unit by the look of each text.
"""

from __future__ import annotations

import re

from mgs_trl.verifiers.math.words import changes_number

_FONT = r"\\(?:text(?:bf|rm|it|normal)?|math(?:rm|bf|it)|mbox)"
_WRAPPER = re.compile(_FONT + r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_AND_OR = re.compile(rf",?\s*{_FONT}\s*\{{\s*,?\s*(?:and|or)\s*\}}")
_LETTER = re.compile(
    r"\\(?:mathbf|mathit|boldsymbol)\s*\{\s*([A-Za-z]|\d+)\s*\}|\\(?:mathrm|text)\s*\{\s*([ie]|\d+)\s*\}"
)
_LEADING = re.compile(
    rf"\s*(?:=|\\sim(?:eq)?(?![A-Za-z])|\\(?:therefore|implies|Rightarrow|rightarrow|bf)(?![A-Za-z])"
    rf"|{_FONT}\s*\{{\s*(?:approximately|approx\.?|about|roughly|around)\s*\}}|\\(?:max|min)\s*="
    rf"|{_FONT}\s*\{{[^{{}}\d]*\}}\s*=)\s*"
)
_BUILDER = re.compile(
    r"\\\{\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?:\\mid(?![A-Za-z])|\||:)\s*(.*)\\\}", re.DOTALL
)
_INEQUALITY = re.compile(r"[<>]|\\[lg](?:e|eq|eqslant|t)(?![A-Za-z])")

_POWER = re.compile(r"\^\s*(?:\{\s*-?\s*\d+\s*\}|-?\d)|\$")
_CUT = re.compile(r"\}(?:\^\d)?\s*$")
_JOINT = re.compile(r"\\(?:cdot|times)(?![A-Za-z])|[\s/*()]")
_BRACKET = re.compile(r"[(\[]|\\\{|\\begin")
_COMMA = re.compile(r",(?![^{}]*\})")
_LOOSE_DIGIT = re.compile(r"(?<![A-Za-z_\d])\d")  # that of "H2O" or "H_2O" is no number

_ALTERNATIVE = re.compile(r"\W*(?:or|and|nor|not|plus|minus)\b")

_TASK = re.compile(
    r"\\(?:i{0,3}int|oint|sum|prod|lim)(?![A-Za-z])|\\[dt]?frac\s*\{\s*(?:d|\\mathrm\s*\{\s*d\s*\})(?:\^[^{}]*)?\s*\}"
)
_GOES_ON = re.compile(r"\\[lc]dots(?![A-Za-z])")
_PRIMES = re.compile(r"(?<=[A-Za-z)}])'+(?![A-Za-z])")

_I = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")
_LOG = re.compile(r"\\log(?![A-Za-z])(?!\s*_)")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_VARIABLE_I = re.compile(
    r"\\(?:sum|prod|bigcup|bigcap|hat|vec|bar|overline)(?![A-Za-z])|_\s*(?:i|\{[^{}]*i)"
    r"|(?<![A-Za-z\\])i\s*(?:[=<>]|\\(?:in|[lg]eq?)(?![A-Za-z]))"
)


def readable(answer: str) -> str | None:
    r"""The answer without a leading `=`, `\text{ or }` as a comma, a set of all x with an inequality as
    the inequality; None where math-verify would drop more than a unit."""
    text = _LETTER.sub(lambda match: f" {match.group(1) or match.group(2)}", _AND_OR.sub(",", answer))
    while leading := _LEADING.match(text):
        text = text[leading.end() :]
    builder = _BUILDER.fullmatch(text.strip())
    if builder and not _INEQUALITY.search(builder.group(2)):
        return None  # math-verify would divide by the colon
    text = builder.group(2) if builder else text
    text = _without_units_in_list(text)
    return None if _holds_more_than_a_unit(text) else text


def interpretations(gold: str, answer: str) -> list[tuple[str, str]]:
    r"""Both answers as they are, with i as the imaginary unit, and each with `\log` as the natural logarithm."""
    pairs = _imaginary(gold, answer)
    if not any(map(_LOG.search, (gold, answer))):
        return pairs
    return pairs + [(_LOG.sub(r"\\ln", one), _LOG.sub(r"\\ln", other)) for one, other in pairs]


def _imaginary(gold: str, answer: str) -> list[tuple[str, str]]:
    """Both as they are, and with i as the imaginary unit unless one of them has it as an index or as part of a product
    of letters."""
    texts = gold, answer
    if not any(map(_I.search, texts)) or any(_VARIABLE_I.search(text) or _has_adjacent_i(text) for text in texts):
        return [texts]
    return [texts, (_I.sub("I", gold), _I.sub("I", answer))]


def _has_adjacent_i(text: str) -> bool:
    return re.search(r"[A-Za-z]i|i[A-Za-z]", _COMMAND.sub(" ", _WRAPPER.sub(" ", text))) is not None


def without_unit_text(answer: str) -> str:
    r"""The answer without the `\text{...}` at its end, known as a unit or not: `5\text{ apples}`, `25\text{ C/m}^2`."""
    first = _WRAPPER.search(answer)
    if (
        first is None
        or _LETTER.match(answer, first.start())
        or _after_units(answer[first.start() :])
        or _holds_more_than_a_unit(answer)
    ):
        return answer
    return answer[: first.start()].rstrip() or answer


def without_wrappers(text: str) -> str:
    r"""The text without its `\text{...}` and the like."""
    return _WRAPPER.sub("", text)


def is_task(text: str) -> bool:
    """Whether the text leaves an integral, a sum, a product, a limit or a derivative to be worked out."""
    return _TASK.search(text) is not None


def deleted(text: str) -> tuple[int, int]:
    """How many derivatives are marked by ', and how often a list or a sum goes on (`...`): math-verify deletes both."""
    marks = _PRIMES.findall(_WRAPPER.sub("", text))
    return sum(map(len, marks)), len(_GOES_ON.findall(text))


def _without_units_in_list(text: str) -> str:
    if _BRACKET.search(text):
        return text
    return ",".join(without_unit_text(part) for part in _COMMA.split(text))


def _holds_more_than_a_unit(text: str) -> bool:
    wrappers = list(_WRAPPER.finditer(_POWER.sub("", text)))
    if any(_LOOSE_DIGIT.search(wrapper.group(1)) or _ALTERNATIVE.match(wrapper.group(1)) for wrapper in wrappers):
        return True
    if any(changes_number(wrapper.group(1)) for wrapper in wrappers if wrapper.start()):
        return True
    first = _WRAPPER.search(text)
    return first is not None and _CUT.search(text) is not None and _after_units(text[first.start() :]) != ""


def _after_units(text: str) -> str:
    return _JOINT.sub("", _WRAPPER.sub("", _POWER.sub("", text)))
