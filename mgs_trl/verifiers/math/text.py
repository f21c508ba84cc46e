r"""Answers as text: what differs in typography only becomes the same, and plain numbers become exact.

White space between two digits is kept (`3 1/2` is not `31/2`), unless it separates thousands.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from itertools import zip_longest

from mgs_trl.verifiers.math.latex import respelled
from mgs_trl.verifiers.math.typography import in_latex

_WRAPPERS = re.compile(r"\\(?:text|textbf|textrm|textit|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_NEXT_EQUATION = re.compile(
    r"(?<=[\w)}\]$])(?<!quad)\s*(?:(?:\\q?quad|\\(?:lor|vee|land|wedge)(?![A-Za-z])|\\\\"
    r"|\\(?:text|mathrm)\s*\{\s*(?:and|or)\s*\})\s*)+(?=[A-Za-z](?:_\{?\w+\}?)?\s*=)"
)  # of `x=1 \lor x=5`, a list
_SPACING = re.compile(
    r"(?<!\\)\\(?:[,;: ]|[hv]space\s*\{[^{}]*\})|[\s~]+"
    r"|\\(?:q?quad|(?:display|text|script)style|tiny|small|normalsize|[lL]arge|LARGE|huge|Huge|rm|bf|it)(?![A-Za-z])"
)
_NARROW = re.compile(r"(?<!\\)\\!\s*")
_SIZES = re.compile(r"\\(?:left|right|big|Big|bigg|Bigg)(?![A-Za-z])")
_EMPHASIS = re.compile(r"(\*\*|__|\*|`)(?=\S)(.*\S)\1", re.DOTALL)
_ENCLOSED = re.compile(
    r"\\\[((?:(?!\\[\[\]]).)+)\\\]|\\\(((?:(?!\\[()]).)+)\\\)"
    r"|(?:\\(?:text(?:bf|rm|it)?|math(?:rm|bf|it)|mbox|boldsymbol|underline)|\\(?:text)?color\s*\{[a-z]+\})"
    r"\s*\{((?=[^}]*\d)(?:[^{}]|\{[^{}]*\})+)\}",
    re.DOTALL,
)
_BRACED = re.compile(r"\{(?!.*\\(?:choose|over|atop)(?![A-Za-z]))((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_COUNTED = re.compile(r"^([-+]?(?:\\?\$)?[\d.,]+)\s+([A-Za-z]{2}[A-Za-z ]*)$")
_LABEL = re.compile(r"(?i:(?:the\s+)?(?:final\s+)?answer\s*(?:is\b\s*:?|[:=]))\s*")
_EXPONENT = re.compile(r"(?<=\d)[eE]([-+]?\d{1,3})(?![\dA-Za-z.])")
_POWERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_MAGNITUDE = re.compile(
    r"(?<=\d)\s*(?:\\(?:text(?:bf|rm|it)?|math(?:rm|bf|it)|mbox)\s*\{\s*(%s)\b\s*([^{}]*)\}|(%s)(?![A-Za-z]))"
    % (("|".join(_POWERS),) * 2)
)
_WORD = re.compile(r"[A-Za-z][a-z]{2,}(?:'[a-z]+)?|TRUE|FALSE|YES|NO|yes|no|Yes|No")
_GAP = re.compile(r"[ ,-]+")
_BASED = re.compile(r"(?<![\dA-Za-z.])\(?(\d[\dA-F]*)\)?\s*_\s*\{?\s*\(?(\d+|[a-z]{3,7})\)?\s*\}?$")
_COMMA = re.compile(r"(?<=\d),(?=\d{3})")
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_BASES |= {"ten": "10", "twelve": "12", "sixteen": "16"}
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)")
_MODULUS = re.compile(r"\\pmod(\d+|[a-z](?![A-Za-z]))")
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
    answer = _NARROW.sub("", in_latex(answer)).replace("{,}", ",")
    answer = answer if "\\begin" in answer else _NEXT_EQUATION.sub(", ", answer)
    answer = respelled(_SPACING.sub(" ", answer)).strip(" ")
    before = None
    while before != answer:
        before = answer
        answer = re.sub(r"^\$+(?=[^$]*\$)|(?<!\\)\$+$", "", answer).strip(" ")
        emphasised = _EMPHASIS.fullmatch(answer)
        answer = emphasised.group(2) if emphasised else answer
        enclosed = _ENCLOSED.fullmatch(answer)
        answer = (
            _COUNTED.sub(r"\1 \\text{\2}", next(filter(None, enclosed.groups())).strip(" ")) if enclosed else answer
        )
        braced = _BRACED.fullmatch(answer)  # of `\boxed{{5}}`
        answer = (braced.group(1) if braced else answer).removesuffix(".").strip(" ")
    wrapped = re.match(r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}", answer)
    if wrapped and _LABEL.fullmatch(wrapped.group(1).strip() + " "):
        answer = answer[wrapped.end() :].strip(" ")
    answer = _LABEL.sub("", answer, count=1) if _LABEL.match(answer) else answer
    answer = _EXPONENT.sub(r" \\times 10^{\1}", answer)
    answer = _MAGNITUDE.sub(_power_of_ten, answer).strip(" ")
    return _THOUSANDS.sub(lambda match: match.group().replace(" ", ""), answer)


def _power_of_ten(magnitude: re.Match[str]) -> str:
    wrapped, unit, bare = magnitude.groups()
    power = f" \\times 10^{{{_POWERS[wrapped or bare]}}} "
    return f"{power}\\text{{{unit}}}" if unit else power


def unwrapped(text: str) -> str:
    r"""The text with `\text{...}`, `\mathrm{...}` and the like replaced by what they hold."""
    return _WRAPPERS.sub(r"\1", text)


def normalise(answer: str) -> str:
    """The answer as text: without text wrappers, spacing, dollar signs and a final full stop."""
    text = clean(unwrapped(clean(_SIZES.sub("", answer))))
    text = re.sub(r"(?<!\d) | (?!\d)|\$", "", text).rstrip(".")
    return _MODULUS.sub(r"\\pmod{\1}", text)


def same_words(text: str, other: str) -> bool:
    """Whether both are the same words but for their case: "New York" is "new york", "AB" is not "ab"."""
    pairs = list(zip_longest(*(_GAP.split(unwrapped(clean(words)).strip()) for words in (text, other))))
    return bool(pairs) and all(one == two or _same_word(one, two) for one, two in pairs)


def _same_word(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return False
    return one.lower() == other.lower() and all(_WORD.fullmatch(word) for word in (one, other))


def same_in_base(text: str, other: str) -> bool | None:
    """Whether two numbers with a base are the same digits in the same base: `1011_2` is not `1011_3`. None unless
    both texts end in such a number, or if more than these stands in them."""
    texts = [_COMMA.sub("", clean(unwrapped(clean(number)))) for number in (text, other)]
    based = [_BASED.search(number) for number in texts]
    digits = [(match.group(1), _BASES.get(match.group(2), match.group(2))) for match in based if match]
    if len(digits) < 2:
        return None
    if digits[0][1] != digits[1][1]:
        return False
    return digits[0] == digits[1] if all(map(_BASED.fullmatch, texts)) else None


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


def last_place(text: str) -> float | None:
    """What one more in the last digit of a decimal adds: 0.01 for 3.14, 1 for 500; None of anything else."""
    match = _SCIENTIFIC.fullmatch(clean(text))
    if match is None:
        return None
    _, digits, *exponents = match.groups()
    return float(Fraction(10) ** (int(_given(exponents)) - len(digits.partition(".")[2])))


def number_text(value: str | float) -> str:
    """A text as it is, a number as a person writes it: 0.00001, not 1e-05."""
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def _given(parts: list[str | None]) -> str:
    return next((part for part in parts if part is not None), "0")
