"""Cutting the reasoning off a completion, so that verifiers score the answer.

| mode | the answer is | when the tag is missing |
|---|---|---|
| `response` | what follows the first `<response>`, up to the next `</response>` or the end | empty |
| `think` | what follows the last `</think>` | empty |
| `none` | the whole completion | |
| `auto` | as `response` with a `<response>`, else the text outside `<think>...</think>` | the whole |

Unclosed tags: an unclosed `<response>` runs to the end (a stop string usually removes its close). What
follows an unclosed `<think>` is thinking, in every mode but `none`: an answer inside it is no answer. A
`</think>` nobody opened ends thinking that began in the prompt.
"""

from __future__ import annotations

from typing import Literal, get_args

Strip = Literal["auto", "response", "think", "none"]
STRIP_MODES: tuple[str, ...] = get_args(Strip)


def strip_thinking(text: str, mode: Strip = "auto") -> str:
    """The answer in `text`, without surrounding white space unless `mode` is "none".

    Linear in the length of `text`. Raises ValueError on an unknown mode.
    """
    if mode == "none":
        return text
    if mode == "response":
        return _response(text)
    if mode == "think":
        return _before_unclosed(text.rpartition("</think>")[2]) if "</think>" in text else ""
    if mode == "auto":
        return _response(text) if "<response>" in text else _before_unclosed(text.rpartition("</think>")[2])
    raise ValueError(f"strip must be one of {', '.join(STRIP_MODES)}, got {mode!r}")


def _response(text: str) -> str:
    answer = text.partition("<response>")[2]
    return answer.partition("</response>")[0].strip()


def _before_unclosed(text: str) -> str:
    return text.partition("<think>")[0].strip()


def follows_thinking_format(text: str, tags: tuple[str, ...] = ("think", "response")) -> bool:
    """Whether `text` is exactly one non-empty block per tag, in this order, with nothing but white space
    outside.

    The close of the last tag may be missing: generation stops at it.
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
