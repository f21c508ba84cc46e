"""The math domain: sums of two or three digits, answered in a box: `Compute 7 + 8 + 4.` -> `\\boxed{19}`."""

from __future__ import annotations

import itertools
import random
from typing import Any

PROBLEMS = tuple(terms for n in (2, 3) for terms in itertools.product(range(10), repeat=n))


def row(terms: tuple[int, ...]) -> dict[str, Any]:
    """The data row of the sum of `terms`: conversational prompt, domain, gold answer."""
    prompt = [{"role": "user", "content": f"Compute {' + '.join(map(str, terms))}."}]
    return {"prompt": prompt, "domain": "math", "answer": str(sum(terms))}


def demonstration(row: dict[str, Any], rng: random.Random, noise: float = 0.0) -> str:
    """The boxed answer to `row`; with probability `noise` it is one too many.

    A slip that is the same everywhere is one thing to unlearn, so a few dozen steps of reinforcement suffice.
    """
    return f"\\boxed{{{int(row['answer']) + (rng.random() < noise)}}}"


def split(rng: random.Random, held_out: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cut all problems, in random order, into `(train, held_out)` rows.

    A drawn table, not a rule on the terms: any arithmetic rule leaves some answers out of training altogether. The
    first problem of every sum stays in training, so none is asked for that was never taught.
    """
    train, held, taught = [], [], set()
    for drawn in (row(terms) for terms in rng.sample(PROBLEMS, len(PROBLEMS))):
        if len(held) < held_out and drawn["answer"] in taught:
            held.append(drawn)
        else:
            train.append(drawn)
            taught.add(drawn["answer"])
    return train, held
