# ruff: noqa: E501  tables
"""Units, numbers and letters as models write them, marked as a person would."""

import pytest

from mgs_trl.boxed import last_boxed
from mgs_trl.verifiers import math_verifier
from mgs_trl.verifiers.math.judge import judge

FIVE = [
    r"5~\text{cm}", r"5~\mathrm{kg}", r"5\,cm", "5 cm^2", "5 cm²", "5 m/s^2", r"5 \frac{m}{s}", "5 N", "5°", r"5\textdegree", r"5^{\circ}",
    "5 degrees Celsius", "5 miles per hour", "5 sq. ft", "5 hours", "5kg", "€5", "£5", r"\$5", "**5**", r"\textbf{5}", r"\text{Answer: }5", "5。", "5元",
    "５", "5.", r"5\text{ apples}",
]  # fmt: skip
NOT_FIVE = [
    "5x", "5i", "5 x", "5d", "5t", "5ab", "5A", r"5\pi", "5 million", r"5\text{ million}", "5 or 6", "5, 6", "5 6", "-5 cm", "50 cm", "5 + x", "5!", "6 cm",
]  # fmt: skip


@pytest.mark.parametrize("answer", FIVE)
def test_five_with_a_unit_or_other_typography_is_five(answer):
    assert judge(f"so it is \\boxed{{{answer}}}", "5") == 1.0


@pytest.mark.parametrize("answer", NOT_FIVE)
def test_what_looks_like_a_unit_but_is_none_stays(answer):
    assert judge(f"so it is \\boxed{{{answer}}}", "5") == 0.0


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("The correct answer is (B). Option C is wrong because it is.", "B"),
        (r"The answer is $\text{B}$.", "B"),
        (r"Answer: \textbf{(B)}", "B"),
        ("**Answer:** B", "B"),
        ("The answer is A because it is.", "A"),
        ("So the answer is: (c)", "C"),
        ("The answer is B. No, the answer is C.", "C"),
        ("I choose option C", "C"),
        ("I am done:\n(B) red", "B"),
        ("B", "B"),
        ("Done.\nI hope this helps!", ""),
        ("A quick check confirms it.", ""),
        ("The answer is I think B", ""),
        ("The answer is A or B", ""),
        ("Option C is wrong", ""),
        ("The answer is not B", ""),
    ],
)
def test_a_letter_without_a_box(text, letters):
    assert [letter for letter in "ABCDEFGHIJ" if judge(text, letter)] == list(letters)


@pytest.mark.parametrize(
    ("text", "gold", "score"),
    [
        ("The answer is 3 1/2.", "7/2", 1.0),
        ("The answer is 3 1/2", "31/2", 0.0),
        ("The answer is 1 2.", "12", 0.0),
        ("The answer is 5 m", "5 cm", 0.0),
        ("The answer is 5x", "5", 0.0),
        ("The answer is **5**, since 2 + 3 is.", "5", 1.0),
        ("Answer: €5.", "5", 1.0),
        ("The answer is 1e-5.", "0.00001", 1.0),
        (r"The answer is $50\%$.", "0.5", 1.0),
    ],
)
def test_an_answer_without_a_box(text, gold, score):
    assert judge(text, gold) == score


def test_boxes_without_braces_and_empty_ones():
    assert last_boxed(r"\boxed 3.5") == "3.5"
    assert last_boxed(r"\boxed 1,000, that is") == "1,000"
    assert last_boxed(r"it is \boxed{5}, so \boxed{}") == "5"


def test_gold_numbers_are_written_out():
    answers = [r"\boxed{0.00001}", r"\boxed{10^{16}}", r"\boxed{0.5}", r"\boxed{10^{-5}}"]
    assert math_verifier(["q"] * 4, answers, answer=[1e-05, 1e16, 0.5, 0.00001]) == [1.0] * 4
