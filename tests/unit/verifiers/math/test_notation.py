"""LaTeX that math-verify by itself does not read, marked as a person would."""

import pytest

from mgs_trl.verifiers.math.judge import judge


@pytest.mark.parametrize("pair", ["()", "{}", "[]", "\\{ \\}"])
def test_brackets_in_brackets_without_end_are_no_answer_and_cost_no_time(pair):
    left, right = pair.split() if " " in pair else pair
    nested = left * 300 + "5" + right * 300
    assert judge(f"\\boxed{{{nested}}}", "6") == 0.0
    assert judge(f"The answer is ${nested}$", "6") == 0.0
    assert judge("\\boxed{" + "{" * 900, "6") == 0.0
    assert judge(f"\\boxed{{{'(' * 5}5{')' * 5}}}", "5") == 1.0


@pytest.mark.parametrize("box", ["\\boxed\n{5}", "\\boxed \n\t{5}", "\\fbox\n5"])
def test_a_line_break_between_a_box_and_its_brace(box):
    assert judge(f"it is {box}", "5") == 1.0


@pytest.mark.parametrize("command", ["\\frac", "\\sqrt", "\\binom", "\\frac{", "\\sqrt{1}", "^\\frac"])
def test_commands_without_end_cost_no_time(command):
    assert judge("\\boxed{" + command * 250 + "}" * 1000, "6") == 0.0


@pytest.mark.parametrize(
    "side",
    ["a" * 60, "aaaa " * 60, "|" + "\\A" * 60 + "x|", "\\text{a}" * 60, "A'" * 60, "f(" * 20, "x_" * 60, "|" * 60],
)
def test_what_looks_like_a_name_for_long_costs_no_time(side):
    assert judge(f"\\boxed{{{side}! = 5}}", "5") == 0.0
