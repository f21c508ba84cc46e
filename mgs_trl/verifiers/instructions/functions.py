"""The function-style constraints of RLVR-IFeval rows: `{"func_name": "validate_word_constraint", "N": 100,
...}`.

They resemble the benchmark's ids and differ in detail: counts are exact, words are runs between white
space, comparisons mind case. The definitions are those of the data set's own verifiers
(allenai/open-instruct); where `quantifier` is optional, its absence means "exactly".
"""

from __future__ import annotations

import re

from mgs_trl.verifiers.instructions import parameters as kind
from mgs_trl.verifiers.instructions.content import count_enclosed
from mgs_trl.verifiers.instructions.form import is_json
from mgs_trl.verifiers.instructions.language import is_language
from mgs_trl.verifiers.instructions.registry import constraint

_quantifier = kind.one_of(*kind.QUANTIFIERS)


def _counts(count: int, n: int, quantifier: str, tolerance: int) -> bool:
    if quantifier == "around":
        return abs(count - n) <= tolerance
    return {"at least": count >= n, "at most": count <= n, "less than": count < n, "exactly": count == n}[quantifier]


def _tenth(n: int) -> int:
    return max(round(n * 0.1), 1)


@constraint("verify_keywords", keyword_list=kind.words)
def keywords(response: str, keyword_list: list[str]) -> bool:
    """Every keyword is part of the text, ignoring case."""
    lowered = response.lower()
    return all(keyword.lower() in lowered for keyword in keyword_list)


@constraint("verify_keyword_frequency", word=kind.text, N=kind.whole, optional={"quantifier": _quantifier})
def keyword_frequency(response: str, word: str, N: int, quantifier: str = "exactly") -> bool:
    """The word, as a whole word ignoring case, occurs N times."""
    wanted = word.strip().lower()
    count = sum(match.group() == wanted for match in re.finditer(r"\w+", response.lower()))
    return _counts(count, N, quantifier, _tenth(N))


@constraint("validate_forbidden_words", forbidden_words=kind.words)
def forbidden_words(response: str, forbidden_words: list[str]) -> bool:
    """No forbidden word is part of the text, ignoring case."""
    lowered = response.lower()
    return not any(word.lower() in lowered for word in forbidden_words)


@constraint("verify_letter_frequency", letter=kind.letter, N=kind.whole, optional={"quantifier": _quantifier})
def letter_frequency(response: str, letter: str, N: int, quantifier: str = "exactly") -> bool:
    """The letter, minding case, occurs N times."""
    return _counts(response.count(letter), N, quantifier, _tenth(N))


@constraint("validate_response_language", language=kind.language)
def response_language(response: str, language: str) -> bool:
    """langdetect names the language; a text without features is in no language."""
    return is_language(response, language) is True


@constraint("verify_paragraph_count", N=kind.whole)
def paragraph_count(response: str, N: int) -> bool:
    """N paragraphs between `* * *` dividers, none of them blank."""
    parts = response.strip().split("* * *")
    return len(parts) == N and all(part.strip() for part in parts)


@constraint("validate_word_constraint", N=kind.whole, quantifier=_quantifier)
def word_constraint(response: str, N: int, quantifier: str) -> bool:
    """At least, around (a tenth off) or at most N words between white space."""
    return _counts(len(response.split()), N, quantifier, _tenth(N))


_SENTENCE = re.compile(r"(?<=[.?!])\s")
_ABBREVIATED = re.compile(r"(?:\w\.\w.|[A-Z][a-z]\.)\Z", re.DOTALL)


@constraint("verify_sentence_constraint", N=kind.whole, quantifier=_quantifier)
def sentence_constraint(response: str, N: int, quantifier: str) -> bool:
    """At least, around (one off) or at most N sentences: cut at white space after . ? !, not after "e.g."
    or "Mr."."""
    cuts = (match.start() for match in _SENTENCE.finditer(response))
    count = 1 + sum(_ABBREVIATED.search(response[max(0, cut - 4) : cut]) is None for cut in cuts)
    return _counts(count, N, quantifier, 1)


@constraint("validate_paragraphs", N=kind.position, first_word=kind.text, i=kind.position)
def paragraphs(response: str, N: int, first_word: str, i: int) -> bool:
    """N parts between blank lines, part i beginning with the word."""
    parts = response.split("\n\n")
    return len(parts) == N and i <= N and parts[i - 1].strip().startswith(first_word)


@constraint("verify_postscript", postscript_marker=kind.text)
def postscript(response: str, postscript_marker: str) -> bool:
    """The marker occurs with something after it."""
    _, found, after = response.partition(postscript_marker)
    return bool(found) and bool(after.strip())


@constraint("validate_placeholders", N=kind.whole)
def placeholders(response: str, N: int) -> bool:
    """At least N `[placeholders]`."""
    return count_enclosed(response, "[", "]") >= N


@constraint("verify_bullet_points", N=kind.whole)
def bullet_points(response: str, N: int) -> bool:
    """Exactly N lines that begin with `*` or `-`."""
    return sum(line.strip().startswith(("*", "-")) for line in response.split("\n")) == N


@constraint("validate_title")
def title(response: str) -> bool:
    """A `<<title>>` within a line."""
    return count_enclosed(response, "<<", ">>") > 0


@constraint("validate_choice", options=kind.words)
def choice(response: str, options: list[str]) -> bool:
    """One of the options is part of the text."""
    return any(option in response for option in options)


@constraint("validate_highlighted_sections", N=kind.whole)
def highlighted_sections(response: str, N: int) -> bool:
    """At least N `*highlights*`."""
    return count_enclosed(response, "*", "*") >= N


@constraint("validate_sections", N=kind.whole, section_splitter=kind.text)
def sections(response: str, N: int, section_splitter: str) -> bool:
    """At least N numbered headings such as "Section 1", ignoring case."""
    heading = re.compile(re.escape(section_splitter.strip()) + r"\s?\d+", re.IGNORECASE)
    return sum(1 for _ in heading.finditer(response)) >= N


@constraint("validate_json_format")
def json_format(response: str) -> bool:
    """The whole response is JSON."""
    return is_json(response)


@constraint("validate_repeat_prompt", original_prompt=kind.text)
def repeat_prompt(response: str, original_prompt: str) -> bool:
    """The response begins with the prompt, word for word."""
    return response.startswith(original_prompt)


@constraint("validate_two_responses")
def two_responses(response: str) -> bool:
    """Two different parts around one `******`."""
    first, _, second = response.partition("******")
    return response.count("******") == 1 and first.strip() != second.strip()


@constraint("validate_uppercase")
def uppercase(response: str) -> bool:
    """No small letter."""
    return response == response.upper()


@constraint("validate_lowercase")
def lowercase(response: str) -> bool:
    """No capital letter."""
    return response == response.lower()


@constraint("validate_frequency_capital_words", N=kind.whole, quantifier=_quantifier)
def frequency_capital_words(response: str, N: int, quantifier: str) -> bool:
    """At least, around (a tenth off) or at most N words of the letters A to Z in capitals."""
    return _counts(len(re.findall(r"\b[A-Z]+\b", response)), N, quantifier, _tenth(N))


@constraint("validate_end", end_phrase=kind.text)
def end(response: str, end_phrase: str) -> bool:
    """The response ends with the phrase."""
    return response.endswith(end_phrase)


@constraint("validate_quotation")
def quotation(response: str) -> bool:
    """The response is wrapped in double quotation marks."""
    return len(response) > 1 and response.startswith('"') and response.endswith('"')


@constraint("validate_no_commas")
def no_commas(response: str) -> bool:
    """No comma."""
    return "," not in response
