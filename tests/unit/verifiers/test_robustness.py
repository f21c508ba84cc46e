"""No text takes a built-in verifier over its limit, makes it raise, or breaks the pool."""

import random

import generated
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mgs_trl.boxed import last_boxed
from mgs_trl.verifiers import ifeval_verifier, math_verifier, shared_pool, strip_thinking
from mgs_trl.verifiers.instructions import CONSTRAINTS
from mgs_trl.verifiers.thinking import STRIP_MODES, follows_thinking_format

MEGABYTE = 2**20
HOSTILE = [
    "\n",
    " ",
    "\t\n",
    "*",
    "* ",
    "*\n",
    "**",
    "***",
    "- \n",
    "[",
    "]",
    "[]",
    "<<",
    "<< >>",
    ".",
    "!?",
    ". ",
    "a. ",
    "A.B.",
    '"',
    "'",
]
HOSTILE += [
    "(",
    "{",
    "}",
    "[[",
    '{"a":',
    "\\boxed{",
    "\\boxed{}",
    "{}",
    "\\",
    "$",
    "$$",
    "<think>",
    "</think>",
    "<response>",
    "</response>",
]
HOSTILE += [
    "Section ",
    "Section 1",
    "1",
    "1,",
    "1.",
    "p.",
    "p. ",
    "p.p.s",
    "P.S.",
    "é",
    "日本",
    "\x00",
    "\u202e",
    "\ud800",
    "😀",
    "a",
    "A ",
    "ß",
    "İ",
]
HOSTILE += [
    "\\frac{",
    "^{",
    "x^",
    "\\sqrt",
    "\\text{",
    "(((1+",
    "\\left(",
    "\\begin{pmatrix}",
    "\\%",
    "answer is ",
    "******",
]


def ifeval_rows(count, seed=0):
    """Every constraint with arguments, repeated to `count` rows."""
    rng, names = random.Random(seed), sorted(name for name in CONSTRAINTS if ":" in name)
    ids = [[names[row % len(names)]] for row in range(count)]
    return {"instruction_id_list": ids, "kwargs": [[generated.arguments(one[0], rng)] for one in ids]}


def scored(scores, low=0.0, high=1.0):
    return all(score is not None and low <= score <= high for score in scores)


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_megabyte_of_one_thing_is_judged_within_the_limit(unit):
    """Quadratic code needs hours for this; every constraint, and the math verifier, must score it in their 10 s."""
    text = (unit * (MEGABYTE // len(unit) + 1))[:MEGABYTE]
    counts = {}
    scores = ifeval_verifier([text[:100]] * 25, [text] * 25, **ifeval_rows(25), log_metric=counts.__setitem__)
    assert counts["verifier/instruction_following/ifeval/timeouts"] == 0
    assert scored(scores)
    for strip in ("auto", "none"):
        assert scored(math_verifier(["q"], [text], answer=["5"])), strip


@pytest.mark.parametrize("name", sorted(name for name in CONSTRAINTS if ":" not in name))
def test_function_style_constraints_are_linear(name):
    arguments = {
        "N": 2,
        "quantifier": "around",
        "word": "a",
        "keyword_list": ["a"],
        "forbidden_words": ["b"],
        "letter": "a",
        "language": "en",
    }
    arguments |= {
        "first_word": "a",
        "i": 1,
        "postscript_marker": "P.S.",
        "options": ["a"],
        "section_splitter": "Section",
    }
    arguments |= {"original_prompt": "a", "end_phrase": "a"}
    texts = [(unit * MEGABYTE)[: MEGABYTE // 4] for unit in HOSTILE[:24]]
    rows = [{"func_name": name, **arguments}] * len(texts)
    assert scored(ifeval_verifier(["q"] * len(texts), texts, ground_truth=rows))


pieces = st.one_of(
    st.sampled_from(HOSTILE), st.text(max_size=20), st.sampled_from(generated.PIECES), st.sampled_from(generated.WORDS)
)
texts = st.lists(st.tuples(pieces, st.integers(1, 40)), max_size=25).map(
    lambda parts: "".join(piece * n for piece, n in parts)
)
quiet = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@quiet
@given(st.lists(texts, min_size=25, max_size=25), st.integers(0, 1000))
def test_any_text_gets_an_ifeval_score(batch, seed):
    assert scored(ifeval_verifier(batch, batch, **ifeval_rows(len(batch), seed)))


@settings(quiet, max_examples=10)
@given(st.lists(texts, min_size=4, max_size=10), texts)
def test_any_text_gets_a_math_score_or_a_counted_timeout(batch, gold):
    """Texts that are mathematics can be as costly as they like; they never raise and never crash the pool."""
    counts = {}
    from mgs_trl.verifiers import MathVerifier

    verifier = MathVerifier(time_limit=5.0)
    boxed = [f"so \\boxed{{{text}}}" for text in batch]
    golds = [gold or "5"] * len(batch)
    scores = verifier(batch, boxed, answer=golds, log_metric=counts.__setitem__)
    assert all(score in (None, 0.0, 1.0) for score in scores)
    assert counts["verifier/math/math_verify/timeouts"] == scores.count(None)
    assert math_verifier(["q"], [r"\boxed{5}"], answer=["5"]) == [1.0]


@given(texts, st.sampled_from(STRIP_MODES))
def test_cutting_and_boxes_never_raise(text, mode):
    assert isinstance(strip_thinking(text, mode), str)
    assert isinstance(follows_thinking_format(text), bool)
    assert last_boxed(text) is None or last_boxed(text) in text


@given(texts.filter(lambda text: "boxed" not in text and "\\" not in text and "{" not in text and "}" not in text))
def test_the_last_box_is_found_whatever_is_around_it(text):
    assert last_boxed(f"{text}\\boxed{{1}}{text}\\boxed{{x + {{y}}}}{text}") == "x + {y}"


def soak(samples: int) -> list[int]:
    """Resident kilobytes of the workers together, after a fifth of the samples and at the end."""
    rng, sizes = random.Random(1), []
    for part in range(10):
        texts = [generated.response(rng) for _ in range(samples // 20)]
        ifeval_verifier(texts, texts, **ifeval_rows(len(texts), part))
        sums = [(rng.randint(1, 10**6), rng.randint(1, 10**6)) for _ in range(samples // 20)]
        answers = [f"\\boxed{{\\frac{{{a}}}{{{b}}}}}" for a, b in sums]
        scores = math_verifier(["q"] * len(sums), answers, answer=[f"{a}/{b}" for a, b in sums])
        assert scores == [1.0] * len(sums)
        sizes.append(sum(resident(pid) for pid in shared_pool().processes))
    return [sizes[1], sizes[-1]]


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_soak_of_5000_samples_keeps_its_memory():
    early, late = soak(5_000)
    assert late < early * 1.25 + 20_000, (early, late)


@pytest.mark.slow
def test_soak_of_100000_samples_keeps_its_memory():
    early, late = soak(100_000)
    assert late < early * 1.25 + 20_000, (early, late)
