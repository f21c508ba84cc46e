# ruff: noqa: E501  tables
"""Seeded responses and arguments for every constraint id of the IFEval benchmark, hits and misses both
common."""

import json
import random

WORDS = [
    "apple",
    "river",
    "Berlin",
    "cat",
    "run",
    "running",
    "quick",
    "o'clock",
    "naïve",
    "x2",
    "über",
    "don't",
    "well-known",
    "NASA",
    "NASA's",
    "CAN'T",
    "WE'LL",
    "cannot",
    "it's",
    "GOTTA",
    "EU",
    "I",
    "A",
    "ok",
    "P.S.",
    "Section",
]
ENGLISH = [
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "Please remember to bring your own lunch tomorrow, because the kitchen is closed.",
    "it is raining again and nobody wants to go outside today",
    "WE ARE GOING TO THE MARKET BECAUSE THE FRIDGE IS EMPTY",
    "My answer is yes. That is all I wanted to say about this question!",
]
OTHER = [
    "El perro corre por el parque mientras los niños juegan al fútbol.",
    "Der Zug fährt heute leider nicht, weil die Strecke gesperrt ist.",
    "Il pleut beaucoup aujourd'hui et nous restons à la maison.",
    "Сегодня очень холодно, и мы решили остаться дома.",
    "今日はとても寒いので家にいることにしました。",
]
PIECES = [
    "* a point", "- another point", " - indented", "*", "**bold**", "*high light*", "**", "***", "******", "* *", "<<A Title>>",
    "<<>>", "<<  >>", "[name]", "[address] [date]", "[]", "[open", "Section 1", "SECTION 2", "section 3", "Section  4", "PART 1",
    "P.S. bye", "P. S. bye", "P.P.S see", "p.p. s", "```json", "```", '{"a": 1}', "[1, 2]", "{bad json", '"quoted"', '"', "'", ",",
    "My answer is maybe.", "Any other questions?", "any other questions?", "1. one", "\t", "END", "The end.", "C++", "e.g. this",
]  # fmt: skip


def response(rng: random.Random) -> str:
    """A text of a few lines; now and then blank, wrapped in quotes, fenced JSON, one language, or one
    case."""
    shape = rng.random()
    if shape < 0.03:
        return rng.choice(["", " ", "\n\n", "\t"])
    if shape < 0.10:
        body = json.dumps({"k": [rng.randint(0, 9), rng.choice(WORDS)]})
        return rng.choice(["{}", "```json\n{}\n```", "```\n{}\n```", "```JSON{}```", "{} x"]).format(body)
    if shape < 0.22:
        text = " ".join(rng.choices(ENGLISH if rng.random() < 0.5 else OTHER, k=rng.randint(1, 3)))
        return rng.choice([text, text.upper(), text.lower()])
    parts = []
    for _ in range(rng.randint(1, 10)):
        parts.append(
            rng.choice(
                [
                    rng.choice(PIECES),
                    rng.choice(PIECES),
                    " ".join(rng.choices(WORDS, k=3)),
                    rng.choice(ENGLISH),
                ]
            )
        )
        parts.append(rng.choice([" ", "\n", "\n\n", "\n\n", " \n", ""]))
    text = "".join(parts)
    return rng.choice([text, text, text, f'"{text}"', text.upper(), text.lower(), text.replace(",", "")])


def arguments(name: str, rng: random.Random) -> dict:
    """Valid arguments of constraint `name`."""
    relation, few = rng.choice(["less than", "at least"]), rng.randint(1, 4)
    words = rng.sample(
        ["apple", "River", "cat", "r.n", "NASA", "today", "C++", "the", "nai(ve", "zebra"],
        k=rng.randint(1, 3),
    )
    table = {
        "keywords:existence": {"keywords": words},
        "keywords:frequency": {"keyword": words[0], "frequency": few, "relation": relation},
        "keywords:forbidden_words": {"forbidden_words": words},
        "keywords:letter_frequency": {"letter": rng.choice("aeTzn"), "let_frequency": rng.randint(1, 30), "let_relation": relation},
        "language:response_language": {"language": rng.choice(["en", "es", "de", "fr", "ru", "ja"])},
        "length_constraints:number_sentences": {"num_sentences": few, "relation": relation},
        "length_constraints:number_paragraphs": {"num_paragraphs": few},
        "length_constraints:number_words": {"num_words": rng.randint(1, 40), "relation": relation},
        "detectable_content:number_placeholders": {"num_placeholders": few},
        "detectable_content:postscript": {"postscript_marker": rng.choice(["P.S.", "P.P.S", "P.S. bye", "END"])},
        "detectable_format:number_bullet_lists": {"num_bullets": rng.randint(1, 3)},
        "detectable_format:number_highlighted_sections": {"num_highlights": few},
        "detectable_format:multiple_sections": {"section_spliter": rng.choice(["Section", "SECTION", "PART"]), "num_sections": few},
        "combination:repeat_prompt": {"prompt_to_repeat": rng.choice([*ENGLISH, "El perro", "apple"])},
        "startend:end_checker": {"end_phrase": rng.choice(["Any other questions?", "the end.", "END", "day", "bank."])},
        "change_case:capital_word_frequency": {"capital_frequency": few, "capital_relation": relation},
    }  # fmt: skip
    if name == "length_constraints:nth_paragraph_first_word":
        return {
            "num_paragraphs": few,
            "nth_paragraph": rng.randint(1, few),
            "first_word": rng.choice(["the", "Please", "apple", "section", "p", "it"]),
        }
    return table.get(name, {})
