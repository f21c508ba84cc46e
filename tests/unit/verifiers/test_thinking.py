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
    ],
)
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
    ],
)
def test_thinking_format(text, ok):
    assert follows_thinking_format(text) is ok
