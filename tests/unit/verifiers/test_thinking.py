# ruff: noqa: E501  tables
"""How the answer is cut out of a completion, tag by tag (demand.md R12)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgs_trl.verifiers.thinking import STRIP_MODES, follows_thinking_format, strip_thinking

FULL = "<think> plan </think> <response> answer </response>"


@pytest.mark.parametrize(
    ("text", "auto", "response", "think"),
    [
        (FULL, "answer", "answer", "<response> answer </response>"),
        ("<response> answer", "answer", "answer", ""),
        ("<think>a</think> b", "b", "", "b"),
        ("a</think> b", "b", "", "b"),
        ("<think>a</think> b <think>c</think> d", "d", "", "d"),
        ("plain", "plain", "", ""),
        ("", "", "", ""),
        ("<response>one</response><response>two</response>", "one", "one", ""),
        ("<think>a</think> b <think> c", "b", "", "b"),
        ("b <think> c", "b", "", ""),
        ("<think>put it in <response> </response> tags. It is 5.</think><response>5</response>", "5", "5", "<response>5</response>"),
        ("<think>plan with <response> tags: maybe 4</think> <response>Dear Bob", "Dear Bob", "Dear Bob", "<response>Dear Bob"),
        ("in <response> tags: maybe 4</think> <response>5", "5", "5", "<response>5"),
        ("in <response> tags: maybe 4</think> 5", "5", "", "5"),
        ("<think>so <response>5</response>", "", "", ""),
        ("<think>a</think> b <think>so <response>5</response>", "b", "", "b"),
        ("<think>a</think><response>close it with </think> or not</response>", "close it with </think> or not", "close it with </think> or not", "or not</response>"),
        ("a</think></think><response>b <think> c</response>", "b <think> c", "b <think> c", "<response>b"),
        ("<response>b <think>c</think> d</response>", "b <think>c</think> d", "b <think>c</think> d", "d</response>"),
    ],
)  # fmt: skip
def test_modes(text, auto, response, think):
    assert strip_thinking(text, "auto") == auto
    assert strip_thinking(text, "response") == response
    assert strip_thinking(text, "think") == think
    assert strip_thinking(text, "none") == text


@pytest.mark.parametrize("mode", ["auto", "response", "think"])
def test_r12_an_answer_inside_an_unclosed_think_is_no_answer(mode):
    assert strip_thinking(r"<think> so it is \boxed{5}", mode) == ""


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="strip must be one of auto, response, think, none"):
        strip_thinking("a", "all")  # pyright: ignore[reportArgumentType]


tags = st.sampled_from(["<think>", "</think>", "<response>", "</response>", "x", " ", "\n", "é", "\x00"])


@given(st.lists(tags, max_size=30).map("".join), st.sampled_from(STRIP_MODES))
def test_the_answer_is_always_a_part_of_the_text_without_open_thinking(text, mode):
    answer = strip_thinking(text, mode)
    assert answer in text
    if mode in ("think", "auto") and "<response>" not in text:
        assert "<think>" not in answer
        assert "</think>" not in answer


@given(st.lists(tags, max_size=8).map("".join), st.lists(tags, max_size=8).map("".join))
def test_what_follows_the_format_is_cut_to_its_response(plan, answer):
    text = f"<think>{plan}</think><response>{answer}"
    if follows_thinking_format(text):
        assert (
            strip_thinking(text, "response")
            == strip_thinking(text, "auto")
            == answer.partition("</response>")[0].strip()
        )


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        (FULL, True),
        ("\n<think>a</think>\n<response>b", True),
        ("<think>a<response>b</response>", False),
        ("<think></think><response>b</response>", False),
        ("x" + FULL, False),
        (FULL + "x", False),
        (FULL + FULL, False),
        ("<response>b</response><think>a</think>", False),
        ("<think>a <think>b</think><response>c", False),
        ("", False),
        ("<think>in <response></response> tags</think><response>b</response>", True),
        ("in <response> tags</think><response>b</response>", False),
    ],
)
def test_thinking_format(text, ok):
    assert follows_thinking_format(text) is ok
