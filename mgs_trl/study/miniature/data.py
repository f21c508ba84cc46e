"""The miniature's data: disjoint train and held-out prompts of three domains, and demonstrations for the warm-up."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mgs_trl.study.miniature import arithmetic, conversation, instructions

Rows = list[dict[str, Any]]
DOMAINS: tuple[str, ...] = ("math", "chat", "instruction_following")
MIXED = {"math": 0.26, "chat": 0.24, "instruction_following": 0.5}  # shares of the warm-up


def draw_rows(seed: int, pool: int, held_out: int) -> dict[str, tuple[Rows, Rows]]:
    """Per domain `(train pool, held out)`; no prompt is in both.

    `pool` is the number of instruction-following prompts to draw; the others have as many as their language allows.
    """
    return {
        "math": arithmetic.split(random.Random(f"math {seed}"), held_out),
        "chat": conversation.split(random.Random(f"chat {seed}"), held_out),
        "instruction_following": instructions.split(random.Random(f"instructions {seed}"), pool, held_out),
    }


def write_rows(path: Path, rows: Rows) -> None:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def demonstrate(row: dict[str, Any], rng: random.Random, noise: dict[str, float]) -> str:
    """A demonstration of any domain's row, spoilt with the probability that `noise` gives for its domain."""
    if row["domain"] == "math":
        return arithmetic.demonstration(row, rng, noise["math"])
    if row["domain"] == "instruction_following":
        return instructions.demonstration(row, rng, noise["instruction_following"])
    return conversation.demonstration(row, rng)


def draw_demonstrations(
    pools: dict[str, Rows],
    shares: dict[str, float],
    count: int,
    noise: dict[str, float],
    rng: random.Random,
    fits: Callable[[str], bool] = lambda _: True,
) -> Rows:
    """Draw `count` rows of conversational `prompt` and `completion`, domains in proportion to `shares`.

    An answer that does not fit is drawn again, for another prompt of its domain.
    """
    domains = rng.choices(list(shares), list(shares.values()), k=count)
    drawn = []
    for domain in domains:
        while True:
            row = rng.choice(pools[domain])
            text = demonstrate(row, rng, noise)
            if fits(text):
                break
        drawn.append({"prompt": row["prompt"], "completion": [{"role": "assistant", "content": text}]})
    return drawn
