"""Answers without a box, marked as a person would."""

import pytest

from mgs_trl.verifiers.math.judge import judge

SAYS = [
    # tags
    ("5", "<answer>5</answer>"),
    ("5", "<answer>\n5\n</answer>"),
    ("5", "It is 7, no. <answer>6</answer> I mean <answer>5 apples</answer> The end."),
    ("5", "<answer>5"),
    ("5", "<answer>5</answer><|im_end|>"),
    ("5", "<answer>The answer is 5</answer>"),
    ("5", "<answer>We add.\nThe answer is 5.\n</answer>"),
    ("5", r"<answer>So it is \boxed{5}</answer>"),
    ("1/2", r"<answer>\frac{1}{2}</answer>"),
    ("2<x<5", "<answer>2<x<5</answer>"),
    ("B", "<answer>B. red</answer>"),
    ("B", "<answer>The answer is (B)</answer>"),
    # what ends a turn
    ("5", "The answer is 5</s>"),
    ("5", "The answer is 5.</s>"),
    ("5", "The answer is 5.<|eot_id|> </s>"),
    ("5", "The answer is 5</response>"),
    ("5", "5<｜end▁of▁sentence｜>"),
    ("B", "The answer is B</s>"),
    # one number
    ("5", "The answer is 5 apples."),
    ("5", "The answer is $x=5$."),
    ("5", "The answer is $5$ apples, which is prime."),
    ("5", "The answer is 2+3=5 apples"),
    ("5", "The answer is $2+3$ = 5 apples"),
    ("5", "The answer is not obvious. The answer is 5 apples."),
    ("5", "The answer is not obvious, but it is 5."),
    ("5", "The answer is 5, not 9."),
    ("5", "The answer is $5$ and not 9"),
    ("5", "The answer is a total of 5 apples."),
    ("5", "The answer is exactly $5$ of them."),
    ("5", "The answer is shown below: 5 apples"),
    ("at least 5", "The answer is at least 5"),
    ("10", "The answer is 10 (5+5)"),
    (r"\frac12", r"The answer is $\frac{1}{2}$ of the cake."),
    ("(1,2)", "The answer is the point $(1,2)$."),
    # several, where the gold answer has several
    ("3,4", "The answer is 3 or 4."),
    ("3,4", "The answer is $3$ and $4$."),
    ("x=1,y=2", "The answer is $x=1$ and $y=2$."),
    ("not enough information", "The answer is not enough information."),
]
DOES_NOT_SAY = [
    ("5", "<answer>6</answer>, not 5"),
    ("5", "The answer is 5. <answer>6</answer>"),
    ("5", "<answer>5</answer> <answer>6</answer>"),
    ("5", "<answer>not 5</answer>"),
    ("5", "<answer>5x</answer>"),
    ("5", "<answer>5 or 6</answer>"),
    ("5", "The answer is 5. <answer></answer>"),
    ("B", "<answer>C</answer> B"),
    ("B", "<answer>A or B</answer>"),
    ("5", "The answer is 6</s>"),
    ("5", "The answer is not 5"),
    ("5", "The answer isn't 5"),
    ("5", "The answer is definitely not 5."),
    ("5", "The answer was not 5"),
    ("9", "The answer is 5, not 9."),
    ("9", "The answer is 5 and not 9 apples"),
    ("5", "The answer cannot be 5"),
    ("5", "The answer is 5. No, the answer can't be 5."),
    ("5", "The answer is never 5 apples"),
    ("5", "Answer: not 5"),
    ("5", "The answer is 5 or 6."),
    ("6", "The answer is 5 or 6."),
    ("5", "The answer is $5$ or $6$."),
    ("5", "The answer is either 5 or 6"),
    ("5", "The answer is 5 and 6"),
    ("5", "The answer is 5 maybe 6"),
    ("5", "The answer is 5 or more"),
    ("5", "The answer is 5 as well as 6"),
    ("5", "The answer is 5 (or 6)"),
    ("5", "The answer is 5 (6)"),
    ("5", "The answer is at least 5"),
    ("5", "The answer is at most $5$ apples."),
    ("5", "The answer is more than 5"),
    ("5", "The answer is negative 5."),
    ("5", "The answer is minus $5$"),
    ("5", "The answer is the square root of 5"),
    ("5", "The answer is half of 5"),
    ("5", "The answer is twice 5"),
    ("3", "The answer is 3 hours and 20 minutes."),
    ("3", "The answer is 3 and a half"),
    ("3", "The answer is 3,4"),
    # no value
    ("5", "So $x^2=5$."),
    ("5", "The answer is $x+y=5$"),
    ("5", "So we get $x=6=5$."),
    ("5050", r"We get $\sum_{k=1}^{100} k$."),
    # a box that was cut off
    ("5", r"\boxed{5"),
    ("5", r"Therefore the answer is \boxed{5"),
    ("5", r"The answer is 5: \boxed{5"),
    ("10", r"We get $5 \cdot 2 = 10$, hence \boxed {10"),
]


@pytest.mark.parametrize(("gold", "text"), SAYS)
def test_says(gold, text):
    assert judge(text, gold) == 1.0


@pytest.mark.parametrize(("gold", "text"), DOES_NOT_SAY)
def test_does_not_say(gold, text):
    assert judge(text, gold) == 0.0


def test_a_tag_is_a_fallback_and_its_last_line_its_own():
    assert judge("<answer>5</answer>", "5", "none") == 0.0
    assert judge("<answer>\n5\n</answer>\n", "5", "last_line") == 1.0
    assert judge("<answer>5\nor is it 6\n</answer>", "5", "last_line") == 0.0
