r"""Both signs at once: `1 \pm \sqrt2` is `1+\sqrt2` and `1-\sqrt2`."""

from __future__ import annotations

import re

from mgs_trl.verifiers.math.pieces import pieces

_SIGN = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_SET = re.compile(r"(\s*(?:\\left\s*)?\\\{)(.*?)((?:\\right\s*)?\\\}\s*)", re.DOTALL)
_NAME = re.compile(r"\s*([A-Za-z]\w*)\s*=")
_PLUS = re.compile(r"(^|[=({,])\s*\+")


def both_signs(answer: str) -> str:
    r"""The answer as the list of what each part with one `\pm` stands for, a `\mp` in it taking the other sign. Signs
    of several unknowns, or several in one part, may depend on each other: such an answer stays as it is."""
    if not _SIGN.search(answer):
        return answer
    braces = _SET.fullmatch(answer)
    left, answer_list, right = braces.groups() if braces else ("", answer, "")
    parts = pieces(answer_list)
    names = {name.group(1) if (name := _NAME.match(part)) else None for part in parts}
    if len(names - {None}) > 1 or any(_signs(part) not in ([], ["pm"], ["pm", "mp"]) for part in parts):
        return answer
    return left + ",".join(one for part in parts for one in _alternatives(part)) + right


def _signs(part: str) -> list[str]:
    return _SIGN.findall(part)


def _alternatives(part: str) -> list[str]:
    if not _signs(part):
        return [part]
    plus = _SIGN.sub(lambda sign: "+" if sign.group(1) == "pm" else "-", part)
    minus = _SIGN.sub(lambda sign: "-" if sign.group(1) == "pm" else "+", part)
    return [_PLUS.sub(r"\1", one) for one in (plus, minus)]
