r"""The last box of a text, by a count of the braces; test_math.py and test_math_typography.py have more by hand."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mgs_trl.boxed import LONGEST_ANSWER, last_boxed

tokens = st.lists(st.sampled_from(["{", "}", r"\{", r"\}", r"\\", "a", " "]), max_size=20)


@given(tokens)
def test_braces_are_matched_and_escaped_ones_are_none(parts):
    depths = [0]
    for part in parts:
        depths.append(depths[-1] + (part == "{") - (part == "}"))
    assume(depths[-1] == 0 and min(depths) == 0)
    text = "".join(parts)
    assert last_boxed(rf"x \boxed{{first}} y \boxed{{{text}}} z") == (text.strip() or "first")


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed 6", "6"),
        (r"\boxed6", "6"),
        ("\\boxed\n  {6}", "6"),
        (r"\fbox{6}", "6"),
        (r"\boxed{5}, or \fbox{6}", "6"),
        (r"\boxed{\{1,2} y}", r"\{1,2"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{ }", ""),
        ("6", None),
        (r"\boxed{" + "1" * LONGEST_ANSWER + "}", None),
    ],
)
def test_by_hand(text, content):
    assert last_boxed(text) == content
