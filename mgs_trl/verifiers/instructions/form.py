"""IFEval constraints on how it is said: lists, sections, titles, JSON, beginnings and ends, case,
punctuation.

Definitions: as in content.py.
"""

from __future__ import annotations

import json
import re

from mgs_trl.verifiers.instructions import parameters as kind
from mgs_trl.verifiers.instructions.language import is_language
from mgs_trl.verifiers.instructions.measures import count_capital_words
from mgs_trl.verifiers.instructions.registry import constraint

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


@constraint("detectable_format:number_bullet_lists", num_bullets=kind.whole)
def number_bullet_lists(response: str, num_bullets: int) -> bool:
    """Exactly that many lines that begin with `-`, or with one `*` and something (a line break will do)
    after it."""
    lines = response.split("\n")
    last = lines.pop()
    return sum(_is_bullet(line + "\n") for line in lines) + _is_bullet(last) == num_bullets


def _is_bullet(line: str) -> bool:
    line = line.lstrip()
    return line.startswith("-") or (line.startswith("*") and len(line) > 1 and line[1] != "*")


@constraint("detectable_format:constrained_response")
def constrained_response(response: str) -> bool:
    """One of the three fixed answers occurs."""
    return any(option in response for option in OPTIONS)


@constraint("detectable_format:number_highlighted_sections", num_highlights=kind.whole)
def number_highlighted_sections(response: str, num_highlights: int) -> bool:
    """At least that many `*highlights*` that are not blank; a `**highlight**` counts as well."""
    single = re.findall(r"\*[^\n*]*\*", response)
    double = re.findall(r"\*\*[^\n*]*\*\*", response)
    return sum(bool(mark.strip("*").strip()) for mark in [*single, *double]) >= num_highlights


@constraint("detectable_format:multiple_sections", section_spliter=kind.text, num_sections=kind.whole)
def multiple_sections(response: str, section_spliter: str, num_sections: int) -> bool:
    """At least that many numbered headings such as "Section 1"."""
    heading = section_spliter.strip()
    try:
        pattern = re.compile(heading + r"\s?\d+")
    except re.error:
        pattern = re.compile(re.escape(heading) + r"\s?\d+")
    return sum(1 for _ in pattern.finditer(response)) >= num_sections


@constraint("detectable_format:json_format")
def json_format(response: str) -> bool:
    """The whole response is JSON, with or without a Markdown fence around it."""
    body = response.strip()
    for opening in ("```json", "```Json", "```JSON", "```"):
        body = body.removeprefix(opening)
    return is_json(body.removesuffix("```").strip())


def is_json(text: str) -> bool:
    """Whether `text` is a JSON document."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


@constraint("detectable_format:title")
def title(response: str) -> bool:
    """A `<<title>>` that is not blank, within a line."""
    return any(_has_title(line) for line in response.split("\n"))


def _has_title(line: str) -> bool:
    start = line.find("<<")
    end = line.rfind(">>")
    return start >= 0 and start + 2 < end and bool(line[start:end].lstrip("<").rstrip(">").strip())


@constraint("combination:two_responses")
def two_responses(response: str) -> bool:
    """Exactly two different responses between `******`; blank parts are allowed at the two ends only."""
    parts = [part.strip() for part in response.split("******")]
    filled = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


@constraint("combination:repeat_prompt", prompt_to_repeat=kind.text)
def repeat_prompt(response: str, prompt_to_repeat: str) -> bool:
    """The response begins with the prompt, ignoring case and outer white space."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


@constraint("startend:end_checker", end_phrase=kind.text)
def end_checker(response: str, end_phrase: str) -> bool:
    """The response ends with the phrase, ignoring case, outer white space and quotation marks."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@constraint("startend:quotation")
def quotation(response: str) -> bool:
    """The response is wrapped in double quotation marks."""
    body = response.strip()
    return len(body) > 1 and body[0] == body[-1] == '"'


@constraint(
    "change_case:capital_word_frequency",
    capital_frequency=kind.whole,
    capital_relation=kind.one_of(*kind.RELATIONS),
)
def capital_word_frequency(response: str, capital_frequency: int, capital_relation: str) -> bool:
    """Less than, or at least, that many words in capitals."""
    count = count_capital_words(response)
    return count < capital_frequency if capital_relation == "less than" else count >= capital_frequency


@constraint("change_case:english_capital")
def english_capital(response: str) -> bool:
    """English, all letters capital."""
    return response.isupper() and is_language(response, "en") is not False


@constraint("change_case:english_lowercase")
def english_lowercase(response: str) -> bool:
    """English, no capital letter."""
    return response.islower() and is_language(response, "en") is not False


@constraint("punctuation:no_comma")
def no_comma(response: str) -> bool:
    """No comma."""
    return "," not in response
