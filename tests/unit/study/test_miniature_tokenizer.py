"""The miniature's tokenizer."""

from __future__ import annotations

import string
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from mgs_trl.study.miniature.tokenizer import build_tokenizer, vocabulary

TEXT = st.text(string.digits + string.ascii_letters + string.punctuation + " \n", max_size=60)
tokenizer = cache(build_tokenizer)


@given(text=TEXT)
def test_decoding_gives_the_text_back(text: str) -> None:
    assert tokenizer().decode(tokenizer()(text)["input_ids"]) == text


@given(text=TEXT)
def test_decoding_token_by_token_gives_the_text_back(text: str) -> None:
    """A server decodes as tokens come: pieces must not depend on their neighbours."""
    ids = tokenizer()(text)["input_ids"]
    assert "".join(tokenizer().decode([token]) for token in ids) == text


def test_ids_are_dense_and_fill_a_multiple_of_64() -> None:
    ids = sorted(vocabulary().values())
    assert ids == list(range(len(ids)))
    assert len(ids) % 64 == 0
    assert len(tokenizer()) == len(ids)


def test_pad_is_not_end_and_a_turn_ends_with_end() -> None:
    assert tokenizer().pad_token_id != tokenizer().eos_token_id
    messages = [{"role": "user", "content": "Compute 1 + 2."}, {"role": "assistant", "content": "\\boxed{3}"}]
    whole = tokenizer().apply_chat_template(messages, tokenize=True, return_dict=False)
    start = tokenizer().apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=True, return_dict=False)
    assert whole[: len(start)] == start
    assert whole[-1] == tokenizer().eos_token_id
    assert tokenizer().decode(whole[len(start) : -1]) == "\\boxed{3}"
