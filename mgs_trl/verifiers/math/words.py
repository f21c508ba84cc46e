r"""Words around a number that make another number of it: `3\text{ dozen}` is not 3, `3\text{ apples}` is."""

from __future__ import annotations

import re

from mgs_trl.verifiers.math.units import is_unit

_NUMBER = (
    r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
    r"|(?:dozen|ten|hundred|thousand|million|billion|trillion|lakh|crore)s?|mln|bn|half|halves"
    r"|(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|twelfth|hundredth|thousandth|millionth)s|pi)(?![-\w])"
)
_OPERATION = (
    r"(?:(?:plus|minus|over|mod|modulo|factorial|point\s+\w+|divided|multiplied|to\s+the)(?![-\w])"
    r"|at\s+(?:least|most)\b|(?:squared|cubed)\W*$|[万亿‰])"
)
_FIRST = re.compile(rf"[\s,;(]*(?:(?:and|or|an?|maybe|perhaps)\s+)*(?:{_NUMBER}|{_OPERATION})", re.IGNORECASE)
_LATER = re.compile(
    rf"(?:,|\b(?:and|or|nor|by|over|times|than|plus|minus|point|to|out\s+of))\s+(?:an?\s+)?{_NUMBER}"
    r"|\b(?:by|over|times|than|plus|minus)\s+[b-z](?![-\w])",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"\b(?:at\s+(?:least|most)|up\s+to|(?:more|less|greater|fewer|larger|smaller)\s+than|over|under|above|below"
    r"|minus|negative|twice|(?:half|third|quarter|double|triple|root|square|cube|reciprocal|multiple|power)(?:\s+of)?)"
    r"[\s$*(\\]*$",
    re.IGNORECASE,
)
_COUNTED = re.compile(rf"(?<![-\w]){_NUMBER}\s+([a-z]+)", re.IGNORECASE)
_LETTER = re.compile(r"\s*([A-Za-z])[.\s]*")
_MORE_UNITS = frozenset("CFKT")  # coulomb, farad or Fahrenheit, kelvin, tesla


def changes_next_number(words: str) -> bool:
    """Whether a number after `words` is another number, or a bound: "minus", "twice", "square root of", "at least"."""
    return _BEFORE.search(words) is not None


def changes_number(words: str) -> bool:
    """Whether a number followed by `words` is another number: "hundred", "squared", "or four", "x"."""
    if letter := _LETTER.fullmatch(words):
        return letter.group(1) not in _MORE_UNITS and not is_unit(letter.group(1))
    if _FIRST.match(words) or _LATER.search(words):
        return True
    return any(is_unit(counted.group(1)) for counted in _COUNTED.finditer(words))
