"""What the arguments of a constraint may be; each kind checks and converts one value, at load time.

Every function raises ValueError with the reason, "must be ...", which the caller completes with the names.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

Kind = Callable[[Any], Any]

RELATIONS = ("less than", "at least")
_LANGUAGES = (  # langdetect's; it runs in a worker and is not imported here
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro "
    "ru sk sl so sq sv sw ta te th tl tr uk ur vi zh-cn zh-tw"
)
LANGUAGES = tuple(_LANGUAGES.split())
QUANTIFIERS = ("at least", "around", "at most", "exactly", "less than")


def whole(value: Any) -> int:
    """A whole number, zero or more; 3.0 counts as 3 (tables turn integers with gaps into floats)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < 0:
        raise ValueError("must be a whole number, zero or more")
    return int(value)


def position(value: Any) -> int:
    """A whole number, one or more."""
    number = whole(value)
    if number < 1:
        raise ValueError("must be a whole number, one or more")
    return number


def text(value: Any) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not blank")
    return value


def words(value: Any) -> list[str]:
    """A non-empty list of texts; a single text is a list of one."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not items or not all(isinstance(w, str) and w.strip() for w in items):
        raise ValueError("must be a list of texts that are not blank")
    return list(items)


def letter(value: Any) -> str:
    """One character that is no white space."""
    if not isinstance(value, str) or len(value.strip()) != 1:
        raise ValueError("must be a single character")
    return value.strip()


def language(value: Any) -> str:
    """A language code that langdetect can return: "en", "pt", "zh-cn"."""
    code = value.strip().lower() if isinstance(value, str) else ""
    if code not in LANGUAGES:
        near = [known for known in LANGUAGES if known.startswith(f"{code}-")] if code else []
        near = near or difflib.get_close_matches(code, LANGUAGES, n=1, cutoff=0.7)
        hint = f", did you mean {' or '.join(map(repr, near))}" if near else ""
        raise ValueError(f"must be one of langdetect's language codes{hint}: {' '.join(LANGUAGES)}")
    return code


def one_of(*options: str) -> Kind:
    """One of `options`."""

    def check(value: Any) -> str:
        if value not in options:
            raise ValueError(f"must be one of {', '.join(options)}")
        return value

    return check
