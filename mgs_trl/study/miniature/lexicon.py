"""The miniature's language: a few dozen words, and the clauses they form.

Chat and instruction following speak the same language about the same topics, so that what one domain
rewards (long and flowery answers, commas, exclamation marks) is what the other often forbids.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

TOPICS = (
    "sea", "river", "garden", "forest", "mountain", "moon", "rain", "winter", "morning", "music", "bread", "horse",
    "bird", "city", "bridge", "train", "school", "book", "dream", "fire", "star", "wind", "house", "road",
)  # fmt: skip
NOUNS = (*TOPICS, "light", "song", "heart", "joy", "wonder", "night", "sky", "stone")
PLAIN = ("big", "small", "old", "new", "good", "cold")
FLOWERY = (
    "golden", "gentle", "radiant", "silver", "endless", "tender", "bright", "quiet", "shining", "ancient", "lovely",
    "warm",
)  # fmt: skip
ADJECTIVES = PLAIN + FLOWERY
VERBS = (
    "sings",
    "glows",
    "dances",
    "waits",
    "rests",
    "shines",
    "whispers",
    "opens",
    "moves",
    "calls",
    "grows",
)
PREPOSITIONS = ("over", "under", "with", "near", "like")
ENDINGS = ("the end", "good night", "my friend", "that is all", "so it is", "all is well")


def clause(rng: random.Random, adjectives: Sequence[str], nouns: Sequence[str], full: float = 0.5) -> list[str]:
    """Draw one clause of 3 to 8 words: `the [adj] noun verb [prep the [adj] noun]`.

    `full` is the probability of each of the three optional parts. Slots are drawn from `adjectives` and
    `nouns`; words come back separately, without punctuation and in lower case.
    """
    words = [*_noun_phrase(rng, adjectives, nouns, full), rng.choice(VERBS)]
    if rng.random() < full:
        words += [rng.choice(PREPOSITIONS), *_noun_phrase(rng, adjectives, nouns, full)]
    return words


def _noun_phrase(rng: random.Random, adjectives: Sequence[str], nouns: Sequence[str], full: float) -> list[str]:
    adjective = [rng.choice(adjectives)] if adjectives and rng.random() < full else []
    return ["the", *adjective, rng.choice(nouns)]


def capitalised(text: str) -> str:
    """The text with its first letter in upper case and everything else as it was."""
    return text[:1].upper() + text[1:]
