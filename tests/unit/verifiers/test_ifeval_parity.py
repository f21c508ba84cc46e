"""Agreement with the published IFEval checkers, as lm-eval ships them, on generated (instruction, response)
pairs.

The oracle's Punkt data is not available offline, so two ids are compared with the parts of it that need no
data:
- change_case:capital_word_frequency: nltk's Treebank tokeniser on the sentences of Punkt with an empty model,
  which matter only where a clitic ends one (DON'T.);
- length_constraints:number_sentences: nltk's Punkt algorithm with an empty model, on texts without
  abbreviations, ellipses and initials, which are what the model is for (test_measures.py has cases by
  hand).

Known differences, all on input the benchmark does not have:
- a keyword or section marker that is no valid regular expression raises in the oracle and is literal here;
- the oracle's bullet pattern lets a line of a single `*` swallow the next line; here both lines count for
  themselves;
- a clitic whose full stop is followed by another mark but a quote or bracket (DON'T.?) is cut off by the
  oracle and not here;
- the oracle's quadratic patterns take minutes on a megabyte; here every pattern is linear
  (test_robustness.py).
"""

import random
import re

import generated
import langdetect
import nltk
import pytest

from mgs_trl.verifiers.instructions import CONSTRAINTS, judge
from mgs_trl.verifiers.instructions.judge import loose_variants
from mgs_trl.verifiers.instructions.measures import count_capital_words, count_sentences, count_words

nltk.download = lambda *args, **kwargs: False  # its module downloads on import
oracle = pytest.importorskip("lm_eval.tasks.ifeval.instructions_registry")
utils = pytest.importorskip("lm_eval.tasks.ifeval.utils")

PAIRS = 250  # per id
GOOGLE = sorted(name for name in CONSTRAINTS if ":" in name)


@pytest.fixture(autouse=True)
def offline_oracle(monkeypatch):
    util = oracle.instructions.instructions_util
    empty = nltk.tokenize.punkt.PunktSentenceTokenizer()
    monkeypatch.setattr(util.nltk, "word_tokenize", words)
    monkeypatch.setattr(util, "_get_sentence_tokenizer", lambda: empty)
    monkeypatch.setattr(langdetect.DetectorFactory, "seed", 0)


TREEBANK = nltk.word_tokenize


def words(text: str) -> list[str]:
    """What `nltk.word_tokenize` gives with a Punkt model that knows no abbreviations."""
    sentences = nltk.tokenize.punkt.PunktSentenceTokenizer().tokenize(text)
    return [word for sentence in sentences for word in TREEBANK(sentence, preserve_line=True)]


def pairs(name: str, count: int = PAIRS):
    rng = random.Random(name)
    while count:
        text, arguments = generated.response(rng), generated.arguments(name, rng)
        if name == "length_constraints:number_sentences":
            text = without_what_the_model_knows(text)
        if name == "detectable_format:number_bullet_lists" and re.search(r"^\s*\*\n", text, re.MULTILINE):
            continue  # the second known difference
        if not valid(arguments):
            continue  # the first
        count -= 1
        yield text, arguments


def without_what_the_model_knows(text: str) -> str:
    text = re.sub(r"\.{2,}|e\.g\.|p\. ?p?\.? ?s\.?", "", text, flags=re.IGNORECASE)
    return re.sub(r"\b([A-Za-z]|end)\.", r"\1", text)


def valid(arguments: dict) -> bool:
    try:
        [
            re.compile(word)
            for value in arguments.values()
            for word in (value if isinstance(value, list) else [str(value)])
        ]
    except re.error:
        return False
    return True


def example(name, text, arguments):
    return utils.InputExample(key=0, instruction_id_list=[name], prompt="", kwargs=[arguments])


def test_the_registry_holds_the_benchmarks_25_ids():
    assert sorted(oracle.INSTRUCTION_DICT) == GOOGLE
    assert len(GOOGLE) == 25


@pytest.mark.parametrize("name", GOOGLE)
def test_strict_judgement_agrees_with_the_benchmark(name):
    followed = 0
    for text, arguments in pairs(name):
        expected = utils.test_instruction_following_strict(example(name, text, arguments), text)
        (ours,) = judge(text, [(name, CONSTRAINTS[name].arguments(arguments))])
        assert ours == expected.follow_all_instructions, (text, arguments)
        followed += ours
    assert 0 < followed < PAIRS, f"{followed} of {PAIRS} followed: the pairs decide nothing"


@pytest.mark.parametrize("name", GOOGLE)
def test_loose_judgement_agrees_with_the_benchmark(name):
    for text, arguments in pairs(name, 40):
        if name == "detectable_format:number_bullet_lists" and any(
            re.search(r"^\s*\*\n", variant, re.MULTILINE) for variant in loose_variants(text)
        ):
            continue
        expected = utils.test_instruction_following_loose(example(name, text, arguments), text)
        (ours,) = judge(text, [(name, CONSTRAINTS[name].arguments(arguments))], loose=True)
        assert ours == expected.follow_all_instructions, (text, arguments)


def test_sentence_counts_agree_with_punkt_itself():
    punkt = nltk.tokenize.punkt.PunktSentenceTokenizer()
    rng = random.Random(5)
    texts = [without_what_the_model_knows(generated.response(rng)) for _ in range(1000)]
    wrong = [text for text in texts if count_sentences(text) != len(punkt.tokenize(text))]
    assert not wrong, (len(wrong), wrong[:3])


MARKED = [("हिन्दी में लिखा है", 4), ("สวัสดีครับ", 1), ("தமிழ் மொழி", 2), ("cafe\u0301 re\u0301sume\u0301", 2), ("مُحَمَّد", 1)]


@pytest.mark.parametrize(("text", "words"), MARKED)
def test_marks_on_letters_cut_no_word(text, words):
    assert count_words(text) == oracle.instructions.instructions_util.count_words(text) == words


# What the tokeniser cuts at, what it does not, and letters to be cut.
CUTS = [*"*-–—―'’‘‚“”„«»`\"<>()[]{},:;?!@#$%&/_+=|…", "A******B", ". ", "..", "--", "''", "``"]
LETTERS = [*"AB1aé  ", "N'T", "'S", "'RE", "CAN", "CANNOT", "D'YE", "'TIS", "'T", "GIM", "ME", "MORE'N", "WANNA"]


def test_capital_words_agree_with_the_tokeniser_itself():
    rng = random.Random(6)
    texts = ["".join(rng.choice(rng.choice([CUTS, LETTERS])) for _ in range(rng.randint(1, 12))) for _ in range(5000)]
    counts = [(text, count_capital_words(text), sum(word.isupper() for word in words(text))) for text in texts]
    assert [case for case in counts if case[1] != case[2]] == []
    assert sum(count > 1 for _, count, _ in counts) > 1000
