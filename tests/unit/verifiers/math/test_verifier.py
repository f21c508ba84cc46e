# ruff: noqa: E501  tables
"""The math verifier against answers a person would mark (independent of math-verify's own judgement)."""

import pytest

from mgs_trl.boxed import last_boxed
from mgs_trl.verifiers import MathVerifier, math_verifier
from mgs_trl.verifiers.math.judge import judge


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


def test_math_verify_stays_as_it_is_for_others_in_the_process():
    import math_verify

    assert judge(r"\boxed{R}", "r") == 0.0
    assert not hasattr(math_verify.parser, "Exception")
    both = [math_verify.parse(text, parsing_timeout=None) for text in ("$R$", "$r$")]
    assert math_verify.verify(*both, timeout_seconds=None)  # by itself it takes letters of both cases for the same
