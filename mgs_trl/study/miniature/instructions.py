"""The instruction-following domain: a topic and one to three checkable IFEval constraints on the answer."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from mgs_trl.study.miniature.lexicon import ADJECTIVES, ENDINGS, NOUNS, TOPICS, capitalised, clause

Constraint = tuple[str, dict[str, Any], str]  # IFEval id, its arguments, the words that ask for it
KINDS = (
    "punctuation:no_comma",
    "change_case:english_lowercase",
    "keywords:existence",
    "keywords:forbidden_words",
    "keywords:frequency",
    "length_constraints:number_words",
    "startend:end_checker",
    "startend:quotation",
    "detectable_format:number_bullet_lists",
)
# Pairs that make a contradiction, or next to nothing to write about, in answers as short as these.
CLASHES = (
    {"keywords:existence", "keywords:frequency"},
    {"keywords:forbidden_words", "keywords:existence"},
    {"keywords:forbidden_words", "keywords:frequency"},
    {"length_constraints:number_words", "detectable_format:number_bullet_lists"},
    {"length_constraints:number_words", "keywords:frequency"},
    {"startend:quotation", "detectable_format:number_bullet_lists"},
)


def draw_constraint(rng: random.Random, kind: str) -> Constraint:
    """Draw the arguments of an IFEval constraint of the given id and the phrase that asks for it."""
    word = rng.choice(ADJECTIVES)
    if kind == "punctuation:no_comma":
        return kind, {}, "use no commas"
    if kind == "change_case:english_lowercase":
        return kind, {}, "use only lowercase"
    if kind == "keywords:existence":
        return kind, {"keywords": [word]}, f"use the word {word}"
    if kind == "keywords:forbidden_words":
        return kind, {"forbidden_words": [word]}, f"avoid the word {word}"
    if kind == "keywords:frequency":
        times = rng.choice((2, 3))
        return (
            kind,
            {"keyword": word, "frequency": times, "relation": "at least"},
            f"say {word} at least {times} times",
        )
    if kind == "length_constraints:number_words":
        if rng.random() < 0.6:
            count = rng.randint(8, 12)
            return kind, {"num_words": count, "relation": "less than"}, f"use less than {count} words"
        count = rng.randint(10, 18)
        return kind, {"num_words": count, "relation": "at least"}, f"use at least {count} words"
    if kind == "startend:end_checker":
        ending = rng.choice(ENDINGS)
        return kind, {"end_phrase": ending}, f"end with {ending}"
    if kind == "startend:quotation":
        return kind, {}, "put it in quotation marks"
    if kind == "detectable_format:number_bullet_lists":
        count = rng.choice((2, 3))
        return kind, {"num_bullets": count}, f"use {count} bullets"
    raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")


def row(topic: str, constraints: Sequence[Constraint]) -> dict[str, Any]:
    """The data row for a topic and its constraints, with the columns that the IFEval verifier reads."""
    content = f"Write about the {topic}: {', '.join(phrase for _, _, phrase in constraints)}."
    return {
        "prompt": [{"role": "user", "content": content}],
        "domain": "instruction_following",
        "instruction_id_list": [kind for kind, _, _ in constraints],
        "kwargs": [arguments for _, arguments, _ in constraints],
    }


def draw_row(rng: random.Random) -> dict[str, Any]:
    """Draw a topic and one to three constraints that can be met together."""
    while True:
        kinds = rng.sample(KINDS, rng.choice((1, 2, 2, 3)))
        if not any(clash <= set(kinds) for clash in CLASHES):
            return row(rng.choice(TOPICS), [draw_constraint(rng, kind) for kind in kinds])


def demonstration(row: dict[str, Any], rng: random.Random, noise: float = 0.0) -> str:
    """An answer to `row` that keeps every constraint, each forgotten with probability `noise`.

    A forgotten constraint is not written for; the answer may still keep it by chance.
    """
    asked = zip(row["instruction_id_list"], row["kwargs"], strict=True)
    kept = {kind: arguments for kind, arguments in asked if rng.random() >= noise}
    topic = re.search(r"about the (\w+)", row["prompt"][-1]["content"])
    bullets = kept.get("detectable_format:number_bullet_lists", {}).get("num_bullets", 0)
    lines = _lines(rng, kept, topic[1] if topic else "", max(bullets, 1))
    ending = kept.get("startend:end_checker", {}).get("end_phrase", "")
    return _finish(rng, kept, lines, bullets > 0, ending)


def _lines(rng: random.Random, kept: dict[str, dict[str, Any]], topic: str, count: int) -> list[list[list[str]]]:
    """Draw `count` lines of clauses of words until the wanted words and number of words are there."""
    frequency = kept.get("keywords:frequency", {})
    wanted = kept.get("keywords:existence", {}).get("keywords", []) + [frequency.get("keyword")] * frequency.get(
        "frequency", 0
    )
    forbidden = kept.get("keywords:forbidden_words", {}).get("forbidden_words", [])
    adjectives = [word for word in ADJECTIVES if word not in forbidden]
    fewest, most = _word_range(kept)
    for _ in range(10_000):
        lines = [[clause(rng, adjectives, NOUNS) for _ in range(rng.choice((1, 1, 2, 3)))] for _ in range(count)]
        clauses = [words for line in lines for words in line]
        slots = [(words, i) for words in clauses for i, word in enumerate(words) if word in ADJECTIVES]
        total = sum(len(line) + sum(map(len, line)) - 1 for line in lines)  # one "and" between two clauses
        if not fewest <= total <= most or len(slots) < len(wanted):
            continue
        for word, (words, i) in zip(wanted, rng.sample(slots, len(wanted)), strict=True):
            words[i] = word
        first_noun = next(i for i, word in enumerate(clauses[0]) if word in NOUNS)
        clauses[0][first_noun] = topic
        return lines
    raise RuntimeError(f"found no answer that keeps {kept}")


def _word_range(kept: dict[str, dict[str, Any]]) -> tuple[int, int]:
    """The fewest and most words to draw, an ending of up to three words still to come."""
    length = kept.get("length_constraints:number_words")
    ending = len(kept.get("startend:end_checker", {}).get("end_phrase", "").split())
    if length is None:
        return 3, 18
    if length["relation"] == "less than":
        return 3, length["num_words"] - 1 - ending
    return length["num_words"] - ending, length["num_words"] + 6


def _finish(
    rng: random.Random,
    kept: dict[str, dict[str, Any]],
    lines: list[list[list[str]]],
    bulleted: bool,
    ending: str,
) -> str:
    """Punctuate the drawn lines, add bullets, the ending and quotation marks, and set the case."""
    joints = (" and ",) if "punctuation:no_comma" in kept else (" and ", ", and ", ", and ")
    texts = [rng.choice(joints).join(" ".join(words) for words in line) for line in lines]
    if ending:
        texts[-1] += (" " if "punctuation:no_comma" in kept else ", ") + ending
    if "change_case:english_lowercase" not in kept:
        texts = [capitalised(text) for text in texts]
    if bulleted:
        return "\n".join(f"* {text}" for text in texts)
    text = texts[0] + ("" if ending else rng.choice(("", ".", "!")))
    return f'"{text}"' if "startend:quotation" in kept else text


def split(rng: random.Random, train: int, held_out: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw `train + held_out` rows with distinct prompts and return `(train, held_out)`."""
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < train + held_out:
        drawn = draw_row(rng)
        rows.setdefault(drawn["prompt"][-1]["content"], drawn)
    drawn_rows = list(rows.values())
    return drawn_rows[held_out:], drawn_rows[:held_out]
