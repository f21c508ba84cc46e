"""Cutting the reasoning off a completion, so that verifiers score the answer.

| mode | the answer is | when the tag is missing |
|---|---|---|
| `response` | what follows the first `<response>` outside thinking, up to the next `</response>` or the end | empty |
| `think` | what follows the last `</think>` | empty |
| `none` | the whole completion | |
| `auto` | as `response` with a `<response>` outside thinking, else the text outside `<think>...</think>` | the whole |

Unclosed tags: an unclosed `<response>` runs to the end (a stop string usually removes its close). What
follows an unclosed `<think>` is thinking, in every mode but `none`: an answer inside it is no answer, in a
`<response>` or not. A `</think>` nobody opened ends thinking that began in the prompt. Tags inside the
response are its text.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

Strip = Literal["auto", "response", "think", "none"]
STRIP_MODES: tuple[str, ...] = get_args(Strip)

_TAG = re.compile(r"</?think>|<response>")


def strip_thinking(text: str, mode: Strip = "auto") -> str:
    """The answer in `text`, without surrounding white space unless `mode` is "none".

    Linear in the length of `text`. Raises ValueError on an unknown mode.
    """
    if mode == "none":
        return text
    if mode == "think":
        return text.rpartition("</think>")[2].partition("<think>")[0].strip() if "</think>" in text else ""
    if mode not in STRIP_MODES:
        raise ValueError(f"strip must be one of {', '.join(STRIP_MODES)}, got {mode!r}")
    outside, response = _cut(text)
    if response is not None:
        return response.strip()
    return outside.strip() if mode == "auto" else ""


def _cut(text: str) -> tuple[str, str | None]:
    """What stands after the last thinking (before an unclosed one), and the first response outside thinking
    where there is one."""
    close, open_ = text.find("</think>"), text.find("<think>")
    thinking = close >= 0 and not 0 <= open_ < close  # the prompt opened it
    start, end = 0, len(text)
    for tag in _TAG.finditer(text):
        if tag.group() == "</think>":
            thinking, start, end = False, tag.end(), len(text)
        elif thinking:
            continue
        elif tag.group() == "<think>":
            thinking, end = True, tag.start()
        else:
            return "", text[tag.end() :].partition("</response>")[0]
    return text[start:end], None


def follows_thinking_format(text: str, tags: tuple[str, ...] = ("think", "response")) -> bool:
    """Whether `text` is exactly one non-empty block per tag, in this order, with nothing but white space
    outside.

    The close of the last tag may be missing: generation stops at it. With the tags `think` and `response` the
    last block is then what `strip_thinking` takes.
    """
    rest = text.strip()
    for position, tag in enumerate(tags):
        start, end, last = f"<{tag}>", f"</{tag}>", position == len(tags) - 1
        if not rest.startswith(start):
            return False
        body, closed, rest = rest[len(start) :].partition(end)
        if not body.strip() or start in body or not (closed or last):
            return False
        rest = rest.strip()
        if start in rest or end in rest:
            return False
    return not rest
