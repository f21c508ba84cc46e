"""The math domain: sums of three or four digits, answered in a box: `Compute 7 + 8 + 4.` -> `\\boxed{19}`."""

from __future__ import annotations

import itertools
import random
from typing import Any

PROBLEMS = tuple(terms for n in (3, 4) for terms in itertools.product(range(1, 10), repeat=n))


def row(terms: tuple[int, ...]) -> dict[str, Any]:
    """The data row of the sum of `terms`: conversational prompt, domain, gold answer."""
    prompt = [{"role": "user", "content": f"Compute {' + '.join(map(str, terms))}."}]
    return {"prompt": prompt, "domain": "math", "answer": str(sum(terms))}


def demonstration(row: dict[str, Any], rng: random.Random, noise: float = 0.0) -> str:
    """The boxed answer to `row`; with probability `noise` it is wrong, by one to three either way.

    The policy so learns the right number as the most likely one, with near misses around it: reinforcement has
    something to sharpen.
    """
    answer = int(row["answer"])
    if rng.random() < noise:
        answer += rng.choice((-3, -2, -1, 1, 2, 3))
    return f"\\boxed{{{max(answer, 0)}}}"


def split(rng: random.Random, held_out: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cut all problems, in random order, into `(train, held_out)` rows.

    A drawn table, not a rule on the terms: any arithmetic rule leaves some answers out of training altogether.
    """
    rows = [row(terms) for terms in rng.sample(PROBLEMS, len(PROBLEMS))]
    return rows[held_out:], rows[:held_out]
