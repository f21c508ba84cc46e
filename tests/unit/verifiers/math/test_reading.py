"""Answers that math-verify by itself would misread, marked as a person would."""

import pytest

from mgs_trl.verifiers.math.judge import judge


@pytest.mark.parametrize(
    "gold",
    [
        "She sells 9 * 8 = $<<9*8=72>>72.\n#### 72",
        "#### 72",
        "3+4=7.\nSo it is 72.",
        "First, 3+4=7. Therefore, the answer is 72.",
        "The answer is $72$",
    ],
)
def test_a_gold_solution_is_what_it_concludes(gold):
    assert [judge(f"\\boxed{{{answer}}}", gold) for answer in ("72", "7")] == [1.0, 0.0]
    assert [judge(f"The answer is {answer}.", gold) for answer in ("72", "7")] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "golds"),
    [
        ("Final answer is $7$. The answer is 5 apples", "5"),
        ("Final answer is $5$. No, the answer is 6 apples and pears", "6"),
        ("The answer is 5 because 2+3=5.", "5"),
        ("The answer is 5 because 2+4=6.", "5"),
        ("The answer is 5. Wait, the answer is 6 apples.", "6"),
        ("The final answer is $7$. I hope the answer is helpful.", "7"),
        ("The answer is 5. I mean, the answer is:\n$$6$$", "6"),
        ("So the answer is:\n\n$$8$$", "8"),
        (r"The answer is $5\text{ or 6}$", ""),
        ("We add: the answer is obtained as 4 + 5 = 9", "9"),
    ],
)
def test_the_last_answer_said_counts(text, golds):
    assert [gold for gold in "56789" if judge(text, gold)] == list(golds)
