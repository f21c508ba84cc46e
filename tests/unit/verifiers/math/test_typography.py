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
EQUAL = [
    ("18", r"\text{18元}"), ("-5", "－5"), ("(1,2)", "（1，2）"), (r"25\pi", r"25\pi\text{ cm}^2"), ("5 cm", r"5\text{ centimeters}"), ("5 cm", "5"),
    (r"5\text{ m/s}", r"5\ \frac{m}{s}"), ("10 dollars", r"\$10"), ("100 square meters", r"100\text{ m}^2"), (r"30^\circ", r"30\text{ degrees}"),
    ("7/2", "3 1/2"), ("3.5", "3 1/2"), ("3 1/2", "7/2"), (r"3\frac{1}{2}", "3 1/2"), ("-3.5", "-3 1/2"),
    ("1000", "1 000"), ("1000000", r"1\,000\,000"), ("1000", "1{,}000"), ("5 million", "5,000,000"),
    ("0.5", r"$50\%$"), (r"$50\%$", r"\frac12"), (r"$50\%$", "50"), (r"\frac12", r"**50\%**"), ("0.5", r"\(50\%\)"),
    ("5", r"{5\text{ cm}}"), (r"(-\infty,\frac12]", r"{x \le \frac{1}{2}}"), ("B", "{B}"), (r"\frac{\sqrt{3}}{2}", r"{\frac{\sqrt{3}}{2}}"), ("x^2", "{x}^{2}"), (r"\{1,2\}", r"{\{2,1\}}"), ("yes", r"{\text{Yes}}"),
    ("0.00001", "1e-05"), ("1e-05", r"10^{-5}"), ("1e-3", "0.001"), ("6.02e23", r"6.02 \times 10^{23}"), ("1e16", "10000000000000000"),
    ("3.0e8 m/s", r"3\times 10^8\ \text{m/s}"), ("True", "true"), ("x²", "x^2"),
    ("A", "Option A"), ("B", "(b)"), ("B", r"\text{Option B}"), ("B", "(B) red"),
]  # fmt: skip
DIFFERENT = [
    ("5 cm", "5 m"), ("5 cm", "5 cm^2"), ("5 m/s", "5 m/s^2"), ("5 dollars", "5 euros"), ("5d", "5"), ("x+3", "x+3t"), (r"50\%", "0.05"), ("x^2", "{x}^{3}"), ("(1,2)", "{(2,1)}"), (r"$50\%$", "0.05"), (r"50\%", r"$5\%$"),
    ("31/2", "3 1/2"), ("3 1/2", "31/2"), ("12", "1 2"), ("1 2", "12"), ("100", "1 00"), ("2", "2 1/2"), ("x^2", "x2"), ("x2", "x²"),
    ("0.00001", "0.00002"), ("0.0000001", "0"), ("1e-3", "0.002"), ("6.02e23", r"6.02 \times 10^{22}"), ("True", "false"), ("AB", "ab"),
    ("A", "A or B or C"), ("A", "A, B"), ("A", "(A) and (B)"), ("C", "C + 1"),
]  # fmt: skip


@pytest.mark.parametrize("answer", FIVE)
def test_five_with_a_unit_or_other_typography_is_five(answer):
    assert judge(f"so it is \\boxed{{{answer}}}", "5") == 1.0


@pytest.mark.parametrize("answer", NOT_FIVE)
def test_what_looks_like_a_unit_but_is_none_stays(answer):
    assert judge(f"so it is \\boxed{{{answer}}}", "5") == 0.0


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal(gold, answer):
    assert judge(f"so it is \\boxed{{{answer}}}", gold) == 1.0


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different(gold, answer):
    assert judge(f"so it is \\boxed{{{answer}}}", gold) == 0.0


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
