r"""Notation that math-verify misreads, written in the way that it reads: `\log_2 5` as `\log_{2} 5`, `0.\overline{3}` as
`\frac{1}{3}`, `]0,1[` as `(0,1)`.
"""

from __future__ import annotations

import re
import unicodedata

_SCRIPT = re.compile(r"([_^])\s*(\d+)(?=\s+\d)")
_TWO_ARGUMENTS = re.compile(r"(\\(?:[dtc]?frac|[dt]?binom))\s*(\d)\s+(\d)|(\\[dt]?binom)\s*(\d)(\d)")
_ROOT_ARGUMENT = re.compile(r"(\\sqrt)\s*(\d+)(?=\s+\d)")


def respelled(text: str) -> str:
    """The text in other words of LaTeX, of the same meaning."""
    return _with_braces(text)


def _with_braces(text: str) -> str:
    r"""Braces around the digits that stand for an argument: white space after them is none between two digits of a
    number."""
    text = _SCRIPT.sub(r"\1{\2}", text)
    text = _TWO_ARGUMENTS.sub(lambda match: "{}{{{}}}{{{}}}".format(*filter(None, match.groups())), text)
    return _ROOT_ARGUMENT.sub(r"\1{\2}", text)
