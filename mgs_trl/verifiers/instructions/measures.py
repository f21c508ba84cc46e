"""Counting words, sentences and capital words the way the IFEval benchmark counts them, without downloaded
data.

The benchmark counts sentences with the English Punkt model and capital words with the Treebank tokeniser.
The rules here are those, written out: Punkt's learnt abbreviations are replaced by a list. All patterns are
linear.
"""

from __future__ import annotations

import re

import regex

_NUMBER = re.compile(r"(?:^|[*\"()\[\]{}])-?[.,]?\d[\d,.-]*$")
_WORD = regex.compile(r"\w+")  # as nltk does: to `re` the vowel signs of Hindi are no letters and cut its words
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++(?=[)\";}\]*:@'({\[‘’“”«»]|\s+\S)")
_CLOSERS = re.compile(r"\s*+[\"')\]}’”»]++(?=\s|$|--)")

_ABBREVIATIONS = """
mr mrs ms dr prof rev hon st sr jr gen col capt lt sgt maj gov sen rep pres supt det adm cmdr messrs mt ft
inc ltd co corp bros dept univ assn e.g i.e cf al vs viz approx ca no nos vol vols fig figs eq pp p ed eds ch
sec jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri sat sun
u.s u.k u.n u.s.a d.c n.y e.u a.m p.m b.c a.d ph.d m.d b.a m.a b.s m.s ave blvd rd hwy min max avg est etc
"""
_STARTERS = """ the a an this that these those it he she we they i you his her its our their my your there
here in on at by for from with after before when while if although though because since as but and so
however moreover then thus what who why how where which no not one some many most all both each every
"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
STARTERS = frozenset(_STARTERS.split())


def count_words(text: str) -> int:
    """Runs of letters, with the marks on them, digits and underscores."""
    return sum(1 for _ in _WORD.finditer(text))


def count_sentences(text: str) -> int:
    """Sentences by their full stops, question and exclamation marks.

    A full stop after an abbreviation or an initial does not end one unless a common sentence starter
    follows, after a number unless a small letter follows; after anything else it does. Line breaks alone
    end nothing.
    """
    count, start = 0, 0
    for mark in _SENTENCE_END.finditer(text):
        if mark.start() >= start and _ends_sentence(text, mark):
            closing = _CLOSERS.match(text, mark.end())
            end = closing.end() if closing else mark.end()
            count += bool(text[start:end].strip())
            start = end
    return count + bool(text[start:].strip())


def _ends_sentence(text: str, mark: re.Match[str]) -> bool:
    signs = mark.group()
    if "!" in signs or "?" in signs:
        return True
    following = _next_word(text, mark.end())
    if len(signs) > 1:
        return following[:1].isupper()
    previous = _word_before(text, mark.start())
    bare = previous.lower().lstrip("\"'([{")
    if len(bare) == 1 and bare.isalpha():
        return following.lower() in STARTERS and following[:1].isupper() and bare != "i"
    if bare in ABBREVIATIONS or bare.rpartition("-")[2] in ABBREVIATIONS:
        return following[:1].isupper() and following.lower() in STARTERS
    return not (_NUMBER.search(previous) and following[:1].islower())


def _word_before(text: str, end: int) -> str:
    start = end
    while start > 0 and end - start < 40 and not text[start - 1].isspace():
        start -= 1
    return text[start:end]


def _next_word(text: str, start: int) -> str:
    window = text[start : start + 60].split(maxsplit=1)
    return window[0].strip("\"'()[]{}.,;:!?") if window else ""


# The tokeniser's rules in its order, but for those that cut nothing with a letter.
_TREEBANK = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<!\.)\.(?=[)\";}\]*:@'({\[‘’“”«»\s]|$)", " "),  # Punkt ends a sentence there
        ("[«“‘„]|`+", r" \g<0> "),
        (r"([ (\[{<])(?:\"|'')", r"\1 "),
        (r"(?<!\w)'(?!(?i:re|ve|ll|m|t|s|d|n)\b)(?=\w)", " "),
        (r"([:,])(\D|$)", r" \1 \2"),
        (r"\.{2,}|[;@#$%&?!*]|[‒–—―]", r" \g<0> "),
        (r"([^'])' ", r"\1 "),
        (r"[][(){}<>]|--", r" \g<0> "),
        (r"[»”’\"]|''", r" \g<0> "),
        (r"\s+|$", " "),
        (r"([^' ])('[sSmMdD]|') ", r"\1 \2 "),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
        (
            r"(?i)\b(can(?=not\b)|d(?='ye\b)|(?:gim|lem)(?=me\b)|gon(?=na\b)|got(?=ta\b)|more(?='n\b)|wan(?=na\s))"
            r"(not|'ye|me|na|ta|'n)\b",
            r" \1 \2 ",
        ),
        (r"(?i) ('t)(is|was)\b", r" \1 \2 "),
    )
)


def count_capital_words(text: str) -> int:
    """Words all of whose letters are capitals, as the Treebank tokeniser cuts words: by its own rules, in its order.

    Hyphens do not cut; clitics do (DON'T is DO and N'T, two words).
    """
    for pattern, replacement in _TREEBANK:
        text = pattern.sub(replacement, text)
    return sum(word.isupper() for word in text.split())
