r"""Judging a mathematical answer; runs in a worker process, imports math-verify there.

The answer is the last `\boxed{...}` (agree.py compares it), or without a box what the text says
(said.py), unless it breaks off in a box.
"""

from __future__ import annotations

from typing import Literal

from mgs_trl.boxed import has_open_box, last_boxed
from mgs_trl.verifiers.math.agree import agrees
from mgs_trl.verifiers.math.equal import warm_up
from mgs_trl.verifiers.math.pieces import depth
from mgs_trl.verifiers.math.said import DEEPEST, says

__all__ = ["Fallback", "judge", "warm_up"]  # a worker calls warm_up

Fallback = Literal["none", "text", "last_line"]


def judge(text: str, gold: str, fallback: Fallback = "text") -> float:
    """1.0 if the answer in `text` equals `gold`, else 0.0. `fallback`: where to look without a boxed
    answer."""
    gold = last_boxed(gold) or _after_solution(gold)
    answer = last_boxed(text)
    if answer is not None:
        return float(bool(answer) and depth(answer) <= DEEPEST and agrees(gold, answer))
    if fallback == "none" or has_open_box(text):
        return 0.0
    return float(says(text, gold, last_line=fallback == "last_line"))


def _after_solution(gold: str) -> str:
    """What GSM8K's solutions give after "####"; other golds as they are."""
    *solution, last = gold.rsplit("####", 1)
    return (last.strip().splitlines() or [gold])[0] if solution else gold
