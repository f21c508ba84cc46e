"""IFEval constraints on what is said: keywords, letters, language, lengths, placeholders, postscript.

Definitions: Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models" (arXiv
2311.07911), and the behaviour of its published checkers, quirks included, since scores are compared with
theirs.
"""

from __future__ import annotations

import re

from mgs_trl.verifiers.instructions import parameters as kind
from mgs_trl.verifiers.instructions.language import is_language
from mgs_trl.verifiers.instructions.measures import count_sentences, count_words
from mgs_trl.verifiers.instructions.registry import constraint

_relation = kind.one_of(*kind.RELATIONS)


def _holds(count: int, relation: str, bound: int) -> bool:
    return count < bound if relation == "less than" else count >= bound


def _pattern(keyword: str) -> re.Pattern[str]:
    """The benchmark takes keywords as regular expressions; one that is none is taken literally."""
    try:
        return re.compile(keyword, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError):
        return re.compile(re.escape(keyword), re.IGNORECASE)


@constraint("keywords:existence", keywords=kind.words)
def keywords_exist(response: str, keywords: list[str]) -> bool:
    """Every keyword is found, ignoring case."""
    return all(_pattern(keyword).search(response) for keyword in keywords)


@constraint("keywords:frequency", keyword=kind.text, frequency=kind.whole, relation=_relation)
def keyword_frequency(response: str, keyword: str, frequency: int, relation: str) -> bool:
    """The keyword is found less than, or at least, `frequency` times."""
    return _holds(sum(1 for _ in _pattern(keyword.strip()).finditer(response)), relation, frequency)


@constraint("keywords:forbidden_words", forbidden_words=kind.words)
def no_forbidden_words(response: str, forbidden_words: list[str]) -> bool:
    """No forbidden word is found as a whole word, ignoring case."""
    return not any(_whole_word(word).search(response) for word in forbidden_words)


def _whole_word(word: str) -> re.Pattern[str]:
    try:
        return re.compile(rf"\b{word}\b", re.IGNORECASE)
    except (re.error, RecursionError, OverflowError):
        return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)


@constraint("keywords:letter_frequency", letter=kind.letter, let_frequency=kind.whole, let_relation=_relation)
def letter_frequency(response: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The character, ignoring case, occurs less than, or at least, `let_frequency` times."""
    return _holds(response.lower().count(letter.lower()), let_relation, let_frequency)


@constraint("language:response_language", language=kind.language)
def response_language(response: str, language: str) -> bool:
    """langdetect names the language; a text without any letters to judge counts as followed, as in the
    benchmark."""
    return is_language(response, language) is not False


@constraint("length_constraints:number_sentences", num_sentences=kind.whole, relation=_relation)
def number_sentences(response: str, num_sentences: int, relation: str) -> bool:
    """Less than, or at least, `num_sentences` sentences."""
    return _holds(count_sentences(response), relation, num_sentences)


@constraint("length_constraints:number_words", num_words=kind.whole, relation=_relation)
def number_words(response: str, num_words: int, relation: str) -> bool:
    """Less than, or at least, `num_words` words."""
    return _holds(count_words(response), relation, num_words)


@constraint("length_constraints:number_paragraphs", num_paragraphs=kind.whole)
def number_paragraphs(response: str, num_paragraphs: int) -> bool:
    """Exactly that many paragraphs between `***` dividers; an empty one inside fails, at the ends it does
    not count."""
    filled = [bool(part.strip()) for part in re.split(r"\s?\*\*\*\s?", response)]
    return all(filled[1:-1]) and sum(filled) == num_paragraphs


@constraint(
    "length_constraints:nth_paragraph_first_word",
    num_paragraphs=kind.whole,
    nth_paragraph=kind.position,
    first_word=kind.text,
)
def nth_paragraph_first_word(response: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """`num_paragraphs` non-blank paragraphs between blank lines, the nth (blanks counted) beginning with
    the word."""
    paragraphs = response.split("\n\n")
    filled = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if nth_paragraph > filled or filled != num_paragraphs:
        return False
    paragraph = paragraphs[nth_paragraph - 1].strip()
    if not paragraph:
        return False
    word = paragraph.split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower() == first_word.lower()


@constraint("detectable_content:number_placeholders", num_placeholders=kind.whole)
def number_placeholders(response: str, num_placeholders: int) -> bool:
    """At least that many `[placeholders]`, each within a line."""
    return count_enclosed(response, "[", "]") >= num_placeholders


def count_enclosed(text: str, opening: str, closing: str) -> int:
    """How often an `opening` is closed again in its line; linear, however many are left open."""
    count = 0
    for line in text.split("\n"):
        position = 0
        while (start := line.find(opening, position)) >= 0:
            end = line.find(closing, start + len(opening))
            if end < 0:
                break
            count += 1
            position = end + len(closing)
    return count


@constraint("detectable_content:postscript", postscript_marker=kind.text)
def postscript(response: str, postscript_marker: str) -> bool:
    """The marker occurs, ignoring case; P.S. and P.P.S with or without a space between their letters."""
    marker, lowered = postscript_marker.strip(), response.lower()
    if marker == "P.P.S":
        return re.search(r"p\.\s?p\.\s?s", lowered) is not None
    if marker == "P.S.":
        return re.search(r"p\.\s?s\.", lowered) is not None
    return _pattern(marker.lower()).search(lowered) is not None
