r"""Answers as text: what differs in typography only becomes the same, and plain numbers become exact.

White space between two digits is kept (`3 1/2` is not `31/2`), unless it separates thousands.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

# Full-width forms one by one: the compatibility form of all of Unicode (NFKC) would turn x² into x2.
_TYPOGRAPHY = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_TYPOGRAPHY |= {ord("　"): " ", ord("。"): ".", ord("、"): ",", ord("−"): "-", ord("–"): "-", ord("\u200b"): ""}
_TYPOGRAPHY |= {ord("²"): "^{2}", ord("³"): "^{3}", ord("×"): "\\times ", ord("⋅"): "\\cdot ", ord("·"): "\\cdot "}

_WRAPPERS = re.compile(r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"(?<!\\)\\[,;: ]|\\(?:quad|qquad|displaystyle)(?![A-Za-z])|[\s~]+")
_NARROW = re.compile(r"(?<!\\)\\!")
_SIZES = re.compile(r"\\(?:left|right|big|Big|bigg|Bigg)(?![A-Za-z])")
_EMPHASIS = re.compile(r"(\*\*|__|\*|`)(?=\S)(.*\S)\1", re.DOTALL)
_LABEL = re.compile(r"(?i:(?:the\s+)?(?:final\s+)?answer\s*(?:is\b\s*:?|[:=]))\s*")
_EXPONENT = re.compile(r"(?<=\d)[eE]([-+]?\d{1,3})(?![\dA-Za-z.])")
_MAGNITUDE = re.compile(r"(?<=\d)\s*(?:\\text\s*\{\s*)?(thousand|million|billion|trillion)(?![A-Za-z])\s*\}?")
_POWERS = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)")
_DIGITS = re.compile(r"(?<=\d) (?=\d)")

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_TIMES_TEN = r"\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{\s*([-+]?\d{1,3})\s*\}|([-+]?\d{1,3}))"
_SCIENTIFIC = re.compile(rf"([-+]?)\s*({_DECIMAL})(?:{_TIMES_TEN})?")
_POWER_OF_TEN = re.compile(r"([-+]?)\s*10\s*\^\s*(?:\{\s*([-+]?\d{1,3})\s*\}|(\d))")
_WHOLE = r"(\d{1,30})"
_RATIO = rf"(?:{_WHOLE}\s*/\s*{_WHOLE}|\\[dt]?frac\s*(?:\{{\s*{_WHOLE}\s*\}}\s*\{{\s*{_WHOLE}\s*\}}|(\d)\s*(\d)))"
_FRACTION = re.compile(rf"([-+]?)\s*(?:{_WHOLE}(?:\s+|(?=\\)))?{_RATIO}")


def clean(answer: str) -> str:
    """The answer without emphasis, dollar signs around it, a label ("Answer:") and a final full stop, with single
    spaces for every kind of spacing."""
    answer = _NARROW.sub("", answer.translate(_TYPOGRAPHY)).replace("{,}", ",")
    answer = _SPACING.sub(" ", answer).strip(" ")
    before = None
    while before != answer:
        before = answer
        answer = re.sub(r"^\$+(?=[^$]*\$)|(?<!\\)\$+$", "", answer).strip(" ")
        emphasised = _EMPHASIS.fullmatch(answer)
        answer = emphasised.group(2) if emphasised else answer
        answer = answer.removesuffix(".").strip(" ")
    wrapped = re.match(r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}", answer)
    if wrapped and _LABEL.fullmatch(wrapped.group(1).strip() + " "):
        answer = answer[wrapped.end() :].strip(" ")
    answer = _LABEL.sub("", answer, count=1) if _LABEL.match(answer) else answer
    answer = _EXPONENT.sub(r" \\times 10^{\1}", answer)
    answer = _MAGNITUDE.sub(lambda match: f" \\times 10^{{{_POWERS[match.group(1)]}}} ", answer).strip(" ")
    return _THOUSANDS.sub(lambda match: match.group().replace(" ", ""), answer)


def unwrapped(text: str) -> str:
    r"""The text with `\text{...}`, `\mathrm{...}` and the like replaced by what they hold."""
    return _WRAPPERS.sub(r"\1", text)


def normalise(answer: str) -> str:
    """The answer as text: without text wrappers, spacing, dollar signs and a final full stop."""
    text = clean(unwrapped(clean(_SIZES.sub("", answer))))
    return re.sub(r"(?<!\d) | (?!\d)|\$", "", text).rstrip(".")


def has_loose_digits(answer: str) -> bool:
    """Whether white space stands between two digits: math-verify would read `1 2` as 12."""
    return _DIGITS.search(answer) is not None


def number(answer: str) -> Fraction | None:
    """The exact value of a plain number, None of anything else.

    Plain are decimals with or without thousands separators, powers of ten (`1e-3`, `6.02 \\times 10^{23}`),
    fractions of whole numbers, and mixed numbers (`3 1/2`).
    """
    text = clean(answer)
    if match := _POWER_OF_TEN.fullmatch(text):
        sign, *exponents = match.groups()
        return _signed(sign, Fraction(10) ** int(_given(exponents)))
    if match := _SCIENTIFIC.fullmatch(text):
        sign, digits, *exponents = match.groups()
        return _signed(sign, Fraction(Decimal(digits.replace(",", ""))) * Fraction(10) ** int(_given(exponents)))
    if match := _FRACTION.fullmatch(text):
        sign, whole, *ratio = match.groups()
        above, below = (int(part) for part in ratio if part is not None)
        return _signed(sign, int(whole or 0) + Fraction(above, below)) if below else None
    return None


def number_text(value: str | float) -> str:
    """A text as it is, a number as a person writes it: 0.00001, not 1e-05."""
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _given(parts: list[str | None]) -> str:
    return next((part for part in parts if part is not None), "0")
