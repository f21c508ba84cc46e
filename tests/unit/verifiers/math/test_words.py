# ruff: noqa: E501  tables
r"""Words after a number, most of them in `\text{...}`, marked as a person would."""

import pytest

from mgs_trl.verifiers.math.judge import judge

THREE = [
    r"3\text{ apples}", r"3\text{ cm}", r"3\text{cm}", r"3\text{m}", r"3\mathrm{m}", r"3\text{ C}", r"3\text{ K}", r"3\text{ C/m}^2", r"3\text{ J/K}", r"3\text{ units}", r"3\text{ square units}", r"3\text{ units squared}",
    r"3\text{ cm squared}", r"3\text{ meters per second squared}", r"3\text{ people}", r"3\text{ of the cake}", r"3\text{ per day}", r"3\text{ different ways}", r"3\text{ times}", r"3\text{ times a day}", r"3\text{ boys and girls}",
    r"3\text{ ways to choose two people}", r"3\text{ years old}", r"3\text{ half-lives}", r"3\text{ one-way tickets}", r"3\text{ points}", r"3\text{ tenants}", r"3\text{ pieces}", r"3\text{ more than Bob}", r"3\text{ (units)}", r"\text{3 apples}",
    r"3\text{ o'clock}", r"3\text{ p.m.}", "3 pm", "3 PM", "3am",
]  # fmt: skip
NOT_THREE = [
    r"3\text{ hundred}", r"3\text{ hundreds}", r"3\text{ dozen}", r"3\text{ dozen eggs}", r"3\text{ tens}", r"3\text{ halves}", r"3\text{ thirds}", r"3\text{ tenths}", r"3\text{ thousandths}", r"3\text{ and a half}", r"3\text{ half}",
    r"3\text{ squared}", r"3\text{ cubed}", r"3\text{ factorial}", r"3\text{ plus one}", r"3\text{ minus one}", r"3\text{ over two}", r"3\text{ divided by two}", r"3\text{ times two}", r"3\text{ point five}", r"3\text{ to the power four}", r"3\text{ mod }5",
    r"3\text{, four}", r"3\text{ four}", r"3\text{ or four}", r"3\text{ apples or four}", r"3\text{ out of ten}", r"3\text{ to four}", r"3\text{ feet four inches}", r"3\text{ pi}", r"3\text{ less than x}", r"3\text{ times x}",
    r"3\text{x}", r"3\text{ x}", r"3\text{k}", r"3\text{M}", r"3\text{b}", r"3\text{ lakh}", r"3\text{ crores}", r"3\text{ bn}", r"3\text{ mln}", r"3\text{ ‰}", r"3\text{ at least}", r"3\mathrm{M}", r"3\mathrm{ dozen}", r"\text{3 dozen}", "3 dozen", "3 hundred", r"3\text{万}",
]  # fmt: skip


@pytest.mark.parametrize("answer", THREE)
def test_what_is_counted_or_measured_is_ignored(answer):
    assert judge(f"so it is \\boxed{{{answer}}}", "3") == 1.0


@pytest.mark.parametrize("answer", NOT_THREE)
def test_what_changes_the_number_is_not(answer):
    assert judge(f"so it is \\boxed{{{answer}}}", "3") == 0.0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("The answer is 3 apples on each plate.", 1.0),
        ("The answer is 3 dozen eggs.", 0.0),
        ("The answer is 3 squared", 0.0),
        ("The answer is 3 and a half hours", 0.0),
    ],
)
def test_words_after_a_number_without_a_box(text, score):
    assert judge(text, "3") == score
