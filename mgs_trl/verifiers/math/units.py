r"""Units after a number: `5 m/s^2`, `5\,\text{cm}`, `90^\circ`, `\$5`, `18元`.

A unit is known only from this table, so that a variable is none: `5x` stays `5x`, and `5 m` needs its space.
"""

from __future__ import annotations

import re
from collections import Counter

from mgs_trl.verifiers.math.text import clean

Unit = frozenset[tuple[str, int]]  # powers of base words: m/s^2 is {(m, 1), (s, -2)}

_NAMES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre 厘米", "m": "meter metre 米",
    "km": "kilometer kilometre", "in": "inch inches", "ft": "foot feet", "yd": "yard", "mile": "mi",
    "mg": "milligram", "g": "gram", "kg": "kilogram", "pound": "lb £", "oz": "ounce",
    "s": "sec second", "min": "minute", "h": "hr hour", "day": "", "week": "", "month": "", "year": "yr",
    "N": "newton", "J": "joule", "kJ": "", "W": "watt", "kW": "", "V": "volt", "A": "amp ampere", "ohm": "Ω",
    "Pa": "pascal", "kPa": "", "Hz": "hertz", "mL": "ml milliliter millilitre", "L": "liter litre",
    "kelvin": "", "celsius": "", "fahrenheit": "", "degree": "deg 度", "rad": "radian",
    "arcminute": "", "arcsecond": "", "am": "", "pm": "", "dollar": "USD", "cent": "¢", "euro": "€ EUR",
    "yuan": "元 ¥ RMB", "yen": "円", "rupee": "₹",
}  # fmt: skip
_UNITS = {word: unit for unit, words in _NAMES.items() for word in (unit, *words.split())}
_UNITS |= {f"{word}s": unit for word, unit in _UNITS.items() if word.isalpha() and len(word) > 1}
_WIDER = {"celsius": "degree", "fahrenheit": "degree"}
_WIDER |= {"min": "arcminute", "ft": "arcminute", "s": "arcsecond", "in": "arcsecond"}  # all are written 5' and 5"
_PHRASES = {"mph": "mile/h", "kmph": "km/h", "kph": "km/h", "sq": "square"}

_DEGREES = re.compile(r"\^\s*(?:\{\s*)?\\circ(?:\s*\})?|°|℃|℉|\\textdegree(?:\s*\{\})?|\\degree(?![A-Za-z])")
_TEMPERATURE = re.compile(r"\bdegrees?\s*(C|F)(?:elsius|ahrenheit)?\b")
_MARKS = re.compile(r"(?<=[\d)}])\s*(''|'|\")\s*$")
_UNIT_RATIO = re.compile(r"\\[dt]?frac\s*\{\s*([A-Za-z][A-Za-z^0-9 ]*)\}\s*\{\s*([A-Za-z][A-Za-z^0-9 ]*)\}")
_CURRENCY = re.compile(r"([-+]?)\s*(\\?\$|€|£|¥|₹|\\euro(?![A-Za-z])|\\pounds(?![A-Za-z]))\s*(?=[\d.\\])")
_CURRENCIES = {"€": "euro", "\\euro": "euro", "£": "pound", "\\pounds": "pound", "¥": "yuan", "₹": "rupee"}
_NOON = re.compile(r"(?<=[\d\s])([ap])\.?\s?m\b\.?", re.IGNORECASE)
_NUMBER = re.compile(r"(?:[\d,./:()+\-^{}\s]|\\(?:[dt]?frac|sqrt|pi|times|cdot)(?![A-Za-z]))+")
_VARIABLE = re.compile(r"(?<=[\d}\s])([tdhclsgmo]s?|ab|bc)\s*$")  # which math-verify counts among its units
_FACTOR = re.compile(r"([*/]?)\s*([A-Za-z]+|[^\W\d_]|[€£¥₹¢])(?:\s*\^\s*\{?\s*(-?\d)\s*\}?)?\s*")


def split_unit(answer: str) -> tuple[str, Unit | None]:
    """(number, unit) of an answer that is a plain number and a known unit, else (answer, None)."""
    text = clean(answer)
    if money := _CURRENCY.match(text):
        rest = text[money.end() :]
        unit = _CURRENCIES.get(money.group(2), "dollar")
        return (money.group(1) + rest, frozenset({(unit, 1)})) if _NUMBER.fullmatch(rest) else (answer, None)
    text = _spelled_out(text)
    number = _NUMBER.match(text)
    if number is None or not re.search(r"\d|\\pi", number.group()):
        return answer, None
    tail = text[number.end() :]
    if len(tail) == 1 and tail.isascii() and not number.group().endswith(" "):
        return answer, None
    unit = _unit(tail)
    return (number.group().strip(), unit) if unit else (answer, None)


def is_unit(word: str) -> bool:
    """Whether the word is in the table of units."""
    return _base(word) is not None


def same_unit(unit: Unit, other: Unit) -> bool:
    """Whether the units are the same, a degree being one of Celsius or Fahrenheit as well, a ' feet or minutes."""
    return unit == other or _widened(unit) == other or unit == _widened(other)


def keep_variables(answer: str) -> str:
    """The answer with a variable at its end in braces: math-verify would take the t of `3t` and the ab of `5ab`
    for units."""
    return _VARIABLE.sub(r"{\1}", answer)


def _widened(unit: Unit) -> Unit:
    return frozenset((_WIDER.get(word, word), power) for word, power in unit)


def _spelled_out(text: str) -> str:
    """Text wrappers opened, degrees and ratios of units as words."""
    text = _DEGREES.sub(lambda match: " degree " + {"℃": "C", "℉": "F"}.get(match.group(), ""), text)
    text = re.sub(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}", r" \1 ", text)
    text = _NOON.sub(lambda half: f" {half.group(1).lower()}m", text)
    text = _MARKS.sub(lambda mark: " arcminute" if mark.group(1) == "'" else " arcsecond", text)
    text = _UNIT_RATIO.sub(r" \1/\2", text)
    text = _TEMPERATURE.sub(lambda match: {"C": "celsius", "F": "fahrenheit"}[match.group(1)], text)
    return text.strip()


def _base(word: str) -> str | None:
    return _UNITS.get(word) or _UNITS.get(word.lower() if len(word) > 2 else word)


def _unit(tail: str) -> Unit | None:
    """The unit that `tail` is from end to end."""
    tail = re.sub(r"\\cdot|\\times|(?<=\w)-(?=[A-Za-z])", "*", tail)
    tail = re.sub(r"\bper\b", "/", tail).replace("sq.", "sq").replace("cu.", "cubic")
    tail = re.sub(r"[A-Za-z]+", lambda word: _PHRASES.get(word.group(), word.group()), tail)
    powers: Counter[str] = Counter()
    position, pending = 0, 1
    tail = re.sub(r"\s*([*/])\s*", r"\1", tail.strip())
    while position < len(tail):
        factor = _FACTOR.match(tail, position)
        if factor is None:
            return None
        sign, word, power = factor.groups()
        position = factor.end()
        if word in ("square", "cubic"):
            pending = 2 if word == "square" else 3
            continue
        if word == "squared" and powers:
            return None
        unit = _base(word)
        if unit is None:
            return None
        powers[unit] += (-1 if sign == "/" else 1) * int(power or 1) * pending
        pending = 1
    return frozenset(powers.items()) or None
