r"""What names a quantity: `x_1`, `f(2)`, `P(A \mid B)`, `AB`, `\angle ABC`, `\text{Area}`.

`x + y`, `xy` and `x^2` are no names: what they equal may be told of unknowns.
"""

from __future__ import annotations

import re

from mgs_trl.verifiers.math.pieces import pieces

_GREEK = (
    r"\\(?:var)?(?:alpha|beta|[Gg]amma|[Dd]elta|epsilon|zeta|eta|[Tt]heta|iota|kappa|[Ll]ambda|mu|nu|[Xx]i|rho|[Ss]igma|tau"
    r"|[Uu]psilon|[Pp]hi|chi|[Pp]si|[Oo]mega|ell)(?![A-Za-z])"
)
_ACCENTS = (
    r"\\(?:overline|overrightarrow|widehat|widetilde|vec|hat|bar|tilde|dot|ddot|math(?:bf|cal|bb|frak)|boldsymbol)"
)
_GROUP = r"\{(?:[^{}]|\{[^{}]*\})*\}"
_INDEX = rf"(?:\s*_\s*(?:{_GROUP}|\\[A-Za-z]+|\w+))?'*"
_WRAPPED = r"\\(?:text(?:bf|rm|it)?|mathrm|mbox|operatorname)\s*\{[^{}]*\}"
_WORDS = r"(?:[A-Z][a-z]{2,}|[a-z]{4,})(?: [A-Za-z]+)*"
_LETTER = rf"(?:[A-Za-z]|{_GREEK}|{_ACCENTS}\s*(?:{_GROUP}|[A-Za-z]))"
_POINTS = r"(?:[A-Z](?:_\w|')?){1,6}"
_ARGUMENTS = r"(?:\((?:[^()]|\([^()]*\))*\)|\[[^][]*\])"

_NAMES = (
    _WORDS,
    rf"(?:{_WRAPPED}|(?:\\Delta\s*)?{_LETTER}){_INDEX}",
    rf"\\sigma{_INDEX}\^\{{?2\}}?|[CP]_\{{?\w+\}}?\^\{{?\w+\}}?",  # variances, binomials
    rf"{_POINTS}(?:\s*\\(?:cap|cup|setminus)\s*{_POINTS})*|\[{_POINTS}\]",
    rf"m?\s*\\(?:measured)?(?:angle|triangle)\s*(?:{_POINTS}|\{{{_POINTS}\}}|\w)",
)
_NAME = re.compile(rf"(?:{_WRAPPED}\s*)*(?:{'|'.join(_NAMES)})")
_CALL = re.compile(
    rf"({_LETTER}|{_WRAPPED}|{_WORDS}){_INDEX}(?:\s*\^\s*\{{\s*-\s*1\s*\}})?\s*({_ARGUMENTS})+", re.DOTALL
)
_OPERATION = re.compile(
    r"\\(?:lim|limsup|liminf|sum|prod|i{0,3}int|oint|max|min|sup|inf|det|dim|deg|gcd|lcm|arg|Re|Im|Pr|nabla)(?![A-Za-z])"
    r"|\\[dt]?frac\s*\{\s*(?:d|\\partial)(?![a-z]{2}).*\}\s*\{\s*(?:d|\\partial)(?![a-z]{2})"
)
_SIZE = re.compile(r"(?:\||\\lvert|\\\||\\lVert)(.*?)(?:\||\\rvert|\\\||\\rVert)", re.DOTALL)
_UNKNOWN = re.compile(rf"(?:{_ACCENTS}\s*(?:{_GROUP}|[A-Za-z])|\\[A-Za-z]+|[^a-z])*+", re.DOTALL)  # has none


def is_name(text: str) -> bool:
    """Whether the text names a quantity, a tuple of them, or the ratio of several."""
    text = text.strip()
    if len(terms := pieces(text, ":")) > 1:
        return all(map(is_name, terms))
    if text.startswith("(") and text.endswith(")") and len(terms := pieces(text[1:-1])) > 1:
        return all(map(is_name, terms))
    if _NAME.fullmatch(text):
        return True
    size, call = _SIZE.fullmatch(text), _CALL.fullmatch(text)
    if size:
        return _UNKNOWN.fullmatch(size.group(1)) is not None and any(map(str.isalpha, size.group(1)))
    if call is None:
        return False
    arguments = re.sub(rf"{re.escape(call.group(1))}{_INDEX}\s*\(", "", call.group(2))
    return call.group(1) not in arguments  # `x(x+1)` is a product, `f(f(2))` is none


def is_operation(text: str) -> bool:
    r"""Whether the text is what an operation makes of something: `\lim_{x \to 0} f(x)`, `\frac{dy}{dx}`, `\max f`."""
    return _OPERATION.match(text.strip()) is not None
