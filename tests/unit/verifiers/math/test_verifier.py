# ruff: noqa: E501  tables
"""The math verifier against answers a person would mark (independent of math-verify's own judgement)."""

import pytest

from mgs_trl.boxed import last_boxed
from mgs_trl.verifiers import MathVerifier, math_verifier
from mgs_trl.verifiers.math.judge import judge

EQUAL = [
    ("5", "5.0"), (r"\frac{1}{2}", "0.5"), (r"\frac12", r"\dfrac{1}{2}"), ("1/2", r"\frac{1}{2}"), ("-\\frac{1}{2}", "\\frac{-1}{2}"),
    (r"11\frac{1}{2}", "11.5"), ("1,000", "1000"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"2\pi", "6.283185307"), ("2+3i", "3i+2"),
    ("x^2+2x+1", "(x+1)^2"), ("x=3", "3"), ("3", "x=3"), ("y=2x+3", "y=3+2x"), (r"2\le x", r"x\ge2"),
    ("(1,2]", "(1, 2]"), (r"(-\infty, 3)", r"\left(-\infty,3\right)"), (r"[0,1)\cup(2,3)", r"[0,1) \cup (2,3)"), (r"x \in [1,2]", "[1,2]"),
    (r"\{1,2,3\}", r"\{3, 2, 1\}"), (r"3\text{ or }4", "3, 4"), ("(1,2)", "(1, 2)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
    ("50%", r"50\%"), (r"50\%", "0.5"), (r"50\%", r"\frac{1}{2}"), ("50", r"50\%"), ("0.5", r"50\text{ percent}"),
    ("10", r"10\text{ cm}"), (r"10\text{ cm}", "10"), ("10 cm", "10"), (r"90^\circ", "90"), ("5", r"\$5"),
    ("A", "A"), ("(A)", "A"), ("A", r"\text{(A)}"), ("B", "B. red"), ("C", r"\textbf{(C)}\ 12"),
    ("Evelyn", r"\text{Evelyn}"), (r"\text{even}", "even"), ("east", r"\text{east}."),
]  # fmt: skip
DIFFERENT = [
    ("5", "6"), ("5", "-5"), ("50", "5000"), ("0.33", "1/3"), (r"\frac12", "2"), ("x", "y"), ("(1,2)", "(2,1)"), ("[1,2]", "(1,2)"),
    ("(1,2]", "[1,2]"), ("1,2", "1,3"), ("3", "3,4"), ("12", "1,2"), ("A", "B"), ("A", "Apple is nice"), ("A", "AB"), ("B", "(C) B"),
    ("even", "odd"), ("0", r"\emptyset"), (r"50\%", r"5\%"), (r"50\%", "5"), (r"0.5", r"5\%"), ("5", ""), ("5", " "),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_answers_score_one(gold, answer):
    assert judge(f"so it is $\\boxed{{{answer}}}$.", gold) == 1.0


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different_answers_score_zero(gold, answer):
    assert judge(f"so it is $\\boxed{{{answer}}}$.", gold) == 0.0


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        (r"\boxed{a \\{b}}", r"a \\{b}"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed 7.", "7"),
        (r"\fbox{3}", "3"),
        (r"\boxed{}", ""),
        (r"\boxed", None),
        (r"\boxed{", None),
        ("nothing", None),
        ("\\boxed{x}" + "\\boxed{" * 10, "x"),
    ],
)
def test_last_boxed(text, content):
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "gold", "scores"),
    [
        ("The answer is 5.", "5", {"text": 1.0, "last_line": 1.0, "none": 0.0}),
        (
            "The answer is $\\frac{1}{2}$.\nDone, all 7 of us",
            "0.5",
            {"text": 1.0, "last_line": 0.0, "none": 0.0},
        ),
        ("The answer is (B), a bird.", "B", {"text": 1.0, "last_line": 1.0, "none": 0.0}),
        ("The answer is a bird.", "A", {"text": 0.0, "last_line": 0.0, "none": 0.0}),
        ("no idea", "5", {"text": 0.0, "last_line": 0.0, "none": 0.0}),
        ("", "5", {"text": 0.0, "last_line": 0.0, "none": 0.0}),
    ],
)
def test_fallback_without_a_box(text, gold, scores):
    assert {fallback: judge(text, gold, fallback) for fallback in scores} == scores


def test_a_wrong_box_is_not_saved_by_the_fallback():
    assert judge(r"The answer is 5, that is \boxed{6}", "5") == 0.0


def test_gold_may_be_boxed_or_a_number():
    assert math_verifier(["q"] * 3, [r"\boxed{5}"] * 3, answer=[r"\boxed{5}", 5, 5.0]) == [1.0, 1.0, 1.0]


def test_rows_of_other_domains_and_without_answer_are_none():
    completions = [r"\boxed{5}"] * 4
    assert math_verifier(["q"] * 4, completions, answer=["5", "5", None, "6"], domain=["math", "chat", "math", "math"]) == [
        1.0, None, None, 0.0,
    ]  # fmt: skip
    assert math_verifier(["q"] * 4, completions) == [None] * 4
    assert MathVerifier("algebra")(["q"] * 2, completions[:2], answer=["5", "5"], domain=["algebra", "math"]) == [
        1.0,
        None,
    ]


def test_r12_empty_and_unclosed_answers_score_zero():
    completions = ["", " \n", r"<think> \boxed{5}", r"<think>x</think>\boxed{5}"]
    assert math_verifier(["q"] * 4, completions, answer=["5"] * 4) == [0.0, 0.0, 0.0, 1.0]


def test_r11_text_and_conversations_mix_in_one_batch():
    prompts = ["q", [{"role": "user", "content": "q"}], "q", [{"role": "user", "content": "q"}]]
    completions = [
        r"\boxed{5}",
        [{"role": "assistant", "content": r"\boxed{5}"}],
        r"\boxed{6}",
        [
            {"role": "assistant", "content": r"\boxed{6}"},
            {"role": "tool", "content": "9"},
            {"role": "assistant", "content": [{"type": "text", "text": r"\boxed{5}"}]},
        ],
    ]
    assert math_verifier(prompts, completions, answer=["5"] * 4) == [1.0, 1.0, 0.0, 1.0]


def test_the_prompt_is_never_scored():
    """paper.md R1: the released verifier scored prompt + response."""
    prompts = [r"Is it \boxed{5}?", r"Is it \boxed{6}?", [{"role": "user", "content": r"\boxed{5}"}]]
    assert math_verifier(prompts, ["no idea", r"\boxed{5}", "no idea"], answer=["5"] * 3) == [0.0, 1.0, 0.0]


def test_format_bonus_is_added_for_the_thinking_template_only():
    verifier = MathVerifier(format_bonus=0.25)
    completions = [
        r"<think>a</think><response>\boxed{5}</response>",
        r"<think>a</think>\boxed{5}",
        r"<think>a</think><response>6",
    ]
    assert verifier(["q"] * 3, completions, answer=["5"] * 3) == [1.25, 1.0, 0.25]


def test_options_and_rows_are_checked_at_load_time():
    with pytest.raises(ValueError, match="fallback must be one of none, text, last_line, got 'lastline'"):
        MathVerifier(fallback="lastline")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="time_limit"):
        MathVerifier(time_limit=0)
    with pytest.raises(ValueError, match="on_timeout"):
        MathVerifier(on_timeout=float("nan"))
    good, bad = {"domain": "math", "answer": "5"}, {"domain": "math", "answer": " "}
    math_verifier.validate_rows([good, {"domain": "chat"}, {"domain": "math", "answer": 5}])
    with pytest.raises(ValueError, match="row 1: answer must be a non-empty text or a number, got ' '"):
        math_verifier.validate_rows([good, bad])
    with pytest.raises(ValueError, match=r"row 0.*needs a value for answer"):
        math_verifier.validate_rows([{"domain": "math", "answer": None}])
    with pytest.raises(ValueError, match="needs the columns answer"):
        math_verifier.check_columns(["prompt", "domain"])
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"row 0: answer must be a finite number, got {number}"):
            math_verifier.validate_rows([{"domain": "math", "answer": number}])
    assert math_verifier.required_columns == ("answer",)
