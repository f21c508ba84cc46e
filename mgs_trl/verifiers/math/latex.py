r"""Notation that math-verify misreads, in the notation that it reads: `\log_2 5` as `\log_{2} 5`, `]0,1[` as `(0,1)`,
`0.\overline{3}` as `\frac{1}{3}`.
"""

from __future__ import annotations

import re
from fractions import Fraction

from mgs_trl.verifiers.math.arguments import with_braces

_DOUBLED = re.compile(r"(?<!\\)\{\s*\{([^{}]*)(?<!\\)\}\s*\}")
_SCRIPT = re.compile(r"([_^])\s*(\d+)(?=\s+\d)")
_TWO_ARGUMENTS = re.compile(r"(\\(?:frac|[dt]?binom))\s*(\d)\s+(\d)|(\\[dt]?binom)\s*(\d)(\d)")
_ROOT_ARGUMENT = re.compile(r"(\\sqrt)\s*(\d+)(?=\s+\d)")

_NAMES = (
    (re.compile(r"\\(?:nice|[dtcsx])frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\lg(?![A-Za-z])"), r"\\log_{10}"),
    (re.compile(r"\\dots(?![A-Za-z])|…|\.\.\."), r"\\ldots "),
    (re.compile(r"\\log\s*_\s*(?:\{\s*e\s*\}|e(?![A-Za-z]))"), r"\\ln "),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\backslash(?![A-Za-z])"), r"\\setminus"),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\\colon(?![A-Za-z])|(?:\\(?:text|mathrm|mathbin|mathrel)\s*)?\{\s*:\s*\}"), ":"),
    (re.compile(r"∅|\\varnothing(?![A-Za-z])|(?:\\left\s*)?\\\{\s*(?:\\right\s*)?\\\}"), r"\\emptyset "),
    (re.compile(r"\^\s*(?:\{\s*\\prime\s*\}|\\prime(?![A-Za-z]))|[′’]"), "'"),
)

_REPEATING = re.compile(
    r"(?<![\d.,])(?<!\d )(\d{0,15})\.(\d{0,15})"
    r"(?:\\(?:overline|bar)\s*(?:\{\s*(\d{1,15})\s*\}|(\d))"
    r"|\\dot\s*(?:\{(\d)\}|(\d))(?:(\d{0,15})\\dot\s*(?:\{(\d)\}|(\d)))?)(?!\d)"
)
_ODD_ROOT = re.compile(r"(\\sqrt\s*\[\s*\d*[13579]\s*\])\s*\{\s*-\s*([\d.]+|\\frac\s*\{\d+\}\s*\{\d+\})\s*\}")
_REVERSED = re.compile(
    r"(?P<before>^|\\(?:cup|cap|in|setminus)(?![A-Za-z])|[=])\s*(?:\\left\s*)?(?P<left>[][])"
    r"(?P<ends>[^][(),]+,(?:(?!\\right)[^][(),])+)(?:\\right\s*)?(?P<right>[][])"
)
_TRIGONOMETRY = re.compile(r"(?<![A-Za-z])(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])[^=<>,;&]*")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|°|\\degree(?![A-Za-z]))")


def respelled(text: str) -> str:
    """The text in other words of LaTeX, of the same meaning."""
    while (single := _DOUBLED.sub(r"{\1}", text)) != text:  # of `{{5}}` math-verify would make a set of a set
        text = single
    for name, other in _NAMES:
        text = name.sub(other, text)
    text = _REPEATING.sub(_as_fraction, with_braces(_apart(text)))
    text = _ODD_ROOT.sub(r"(-\1{\2})", text)
    text = _REVERSED.sub(_as_interval, text)
    return _TRIGONOMETRY.sub(lambda angle: _DEGREES.sub(r"(\\frac{\1\\pi}{180})", angle.group()), text)


def _apart(text: str) -> str:
    r"""Braces around the digits that stand for an argument: white space after them is none between two digits of a
    number."""
    text = _SCRIPT.sub(r"\1{\2}", text)
    text = _TWO_ARGUMENTS.sub(lambda match: "{}{{{}}}{{{}}}".format(*filter(None, match.groups())), text)
    return _ROOT_ARGUMENT.sub(r"\1{\2}", text)


def _as_fraction(decimal: re.Match[str]) -> str:
    r"""A repeating decimal as the fraction that it is, bars and dots alike: `0.\dot{1}4\dot{2}` repeats 142."""
    whole, fixed, *groups = (group or "" for group in decimal.groups())
    period = "".join(groups)
    above = int(whole + fixed + period) - int((whole + fixed) or 0)
    value = Fraction(above, 10 ** len(fixed) * (10 ** len(period) - 1))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _as_interval(interval: re.Match[str]) -> str:
    """`]0,1[` as `(0,1)`; a bracket in its usual place stays."""
    left, right = ("(" if interval["left"] == "]" else "["), (")" if interval["right"] == "[" else "]")
    return f"{interval['before']}{left}{interval['ends']}{right}"
