# ruff: noqa: E501  tables
"""Letters of options in a box, marked as a person would."""

import pytest

from mgs_trl.verifiers.math.judge import judge

ONE = [
    "A", "(A)", "A.", "A) 12", "(A) 12", "(A) 12 and 13", "A: blue car", "A. red", "A - 7", r"\textbf{(A)}\ 12", r"(A) \frac{1}{2}", "Option A", "A. Vitamin B", "A. A red car", "(A) I am here", "(A) I", "A. I and II",
    "A. No", "A. not at all", "(A) not enough information", "A. to be or not", "(A) Is this", "A is correct", "(A) f(B)", "(A) -5", "(A) P(A) = P(B)",
]  # fmt: skip
SEVERAL = [
    "A B C D", "A B", "AB", "ABCD", "(A)(B)(C)", "(A) (B)", r"(A)\ (B)", r"\text{A}\quad\text{B}", "A.B.C", "A. B. C.", "A) B)", "A: B", "A; B", "A, B", "A/B", "A and B", "A or B", r"A\text{ or }B", "A nor B", "A vs B", "A versus B",
    "(A) red (B) blue", "A. red B. blue", "A | B", "(A) | (B)", "A to D", "(A) to (D)", "A-D", "A but B",
    "A not", "A is wrong, B", "A is incorrect", "A is not it", "A isn't right", "(A) was wrong", "(A) is wrong",
    r"A \neq B", r"A \ne 5", "(A) < 5", r"A \to C", r"A \cup X", r"A \subset X", r"(A) \le 5", "A + B", "A = B", r"A \cdot 7",
]  # fmt: skip


@pytest.mark.parametrize("answer", ONE)
def test_a_letter_and_its_option(answer):
    assert [letter for letter in "ABCDEFGHIJ" if judge(f"so it is \\boxed{{{answer}}}", letter)] == ["A"]


@pytest.mark.parametrize("answer", SEVERAL)
def test_several_letters_or_a_letter_taken_back_are_no_choice(answer):
    assert [letter for letter in "ABCDEFGHIJ" if judge(f"so it is \\boxed{{{answer}}}", letter)] == []


@pytest.mark.parametrize("last_line", ["(A) (B)", "(A)(B)(C)", "A. B. C.", "(A) is wrong"])
def test_a_last_line_of_several_letters_is_no_choice(last_line):
    assert judge(f"Well then.\n{last_line}", "A") == 0.0


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("The answer is B or C.", ""),
        ("The answer is (B) or (C)", ""),
        ("The answer is B, C", ""),
        ("The answer is B C D", ""),
        ("The answer is (B)(C)(D).", ""),
        ("The answer is B and C, I think", ""),
        ("The answer is B vs. C", ""),
        ("I choose option B or C.", ""),
        ("The answer is B, because (A) is wrong.", "B"),
        ("The answer is (B). (A) is wrong.", "B"),
        ("The answer is B, A is wrong", "B"),
        ("The answer is B\nC is wrong", "B"),
        ("The answer is (B), a bird, and (C) is not one.", "B"),
    ],
)
def test_several_letters_said_are_no_choice(text, letters):
    assert [letter for letter in "ABCDEFGHIJ" if judge(text, letter)] == list(letters)
