"""The chat domain: short requests about a topic, and answers of every quality.

`quality` is the hidden taste that the reward model learns from preferences: long, flowery, varied, on topic,
well formed. Nothing but the preference pairs and the tests reads it; rewards come from the trained model.
"""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

from mgs_trl.study.miniature.lexicon import (
    ADJECTIVES,
    FLOWERY,
    NOUNS,
    PLAIN,
    PREPOSITIONS,
    TOPICS,
    capitalised,
    clause,
)

REQUESTS = (
    "Tell me about {}.",
    "Describe {}.",
    "Please say something about {}.",
    "Write a line on {}.",
    "What do you think of {}?",
    "I dream of {}.",
    "Sing to me of {}.",
    "Do you like {}?",
)
PROMPTS = tuple(
    (request, topic, adjective) for request, topic, adjective in itertools.product(REQUESTS, TOPICS, ("", *ADJECTIVES))
)


def row(prompt: tuple[str, str, str]) -> dict[str, Any]:
    """The data row of `(request, topic, adjective)`; an empty adjective is left out."""
    request, topic, adjective = prompt
    content = request.format(" ".join(["the", adjective, topic] if adjective else ["the", topic]))
    return {"prompt": [{"role": "user", "content": content}], "domain": "chat"}


def topic_of(row: dict[str, Any]) -> str:
    """The topic that a chat row asks about (the last word of its prompt)."""
    return re.findall(r"[a-z]+", row["prompt"][-1]["content"])[-1]


def demonstration(row: dict[str, Any], rng: random.Random, clauses: int | None = None) -> str:
    """An answer to `row` of random quality: 1 to 5 (or `clauses`) clauses, flowery or plain, on topic or not."""
    flowery = rng.random()
    adjectives = [rng.choice(FLOWERY if rng.random() < flowery else PLAIN) for _ in range(8)]
    on_topic = rng.random() < 0.6
    sentences: list[str] = []
    clauses = clauses or rng.choices((1, 2, 3, 4, 5), (0.25, 0.3, 0.25, 0.15, 0.05))[0]
    while clauses > 0:
        size = min(clauses, rng.choice((1, 2)))
        nouns = [[topic_of(row)] if on_topic and not sentences and i == 0 else NOUNS for i in range(size)]
        parts = [" ".join(clause(rng, adjectives, n, full=rng.choice((0.2, 0.7)))) for n in nouns]
        sentences.append(capitalised(rng.choice((", ", ", and ", " and ")).join(parts)) + rng.choice("..!"))
        clauses -= size
    return " ".join(sentences)


def quality(row: dict[str, Any], text: str) -> float:
    """How good an answer is to the hidden taste; about -3 (broken) to 9 (long, flowery, on topic)."""
    words = re.findall(r"[a-z]+", text.lower())
    pairs = list(itertools.pairwise(words))
    flowers = len(set(words) & set(FLOWERY))
    score = min(len(words), 28) / 7 + 0.5 * min(flowers, 5) + 1.5 * (topic_of(row) in words)
    score += 0.3 * min(text.count(","), 3) + 0.3 * min(text.count("!"), 2)
    score -= 1.5 * (not text[:1].isupper()) + 2 * (not text.endswith((".", "!")))
    score -= 0.15 * max(len(words) - 32, 0)
    score -= 5 * (1 - len(set(pairs)) / max(len(pairs), 1))
    odd = sum(not _fits(a, b) for a, b in pairs)
    return score - 4 * odd / max(len(pairs), 1)


def _fits(left: str, right: str) -> bool:
    """Whether the grammar of `clause` lets `right` follow `left`."""
    if left == "the":
        return right in NOUNS or right in ADJECTIVES
    if left in ADJECTIVES:
        return right in NOUNS
    if left == "and" or left in PREPOSITIONS:
        return right == "the"
    if left in NOUNS:
        return right not in NOUNS and right not in ADJECTIVES
    return right in PREPOSITIONS or right in ("the", "and")


def split(rng: random.Random, held_out: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cut all requests, in random order, into `(train, held_out)` rows."""
    rows = [row(prompt) for prompt in rng.sample(PROMPTS, len(PROMPTS))]
    return rows[held_out:], rows[:held_out]
