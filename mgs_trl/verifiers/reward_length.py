"""How many tokens a reward model takes, and how a longer conversation is cut to them."""

from __future__ import annotations

from typing import Any

_POSITIONS = ("position_embeddings", "embed_positions", "wpe")  # what the families of transformers call the module


def longest_input(model: Any) -> int | None:
    """The tokens that `model` is made for: its configuration's limit, or less where the embeddings of its positions
    begin behind that of padding (RoBERTa's 514 are 512); None without a limit."""
    configured = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    limits = [configured] if configured > 0 else []
    return min([*limits, *_positions(model)], default=None)


def learned_positions(model: Any) -> int | None:
    """The longest input that `model` has embeddings for; None where positions are computed."""
    return longest_input(model) if _positions(model) else None


def _positions(model: Any) -> list[int]:
    import torch

    return [
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) and name.endswith(_POSITIONS)
    ]


def tokens_within(tokenizer: Any, text: str, limit: int | None, *, special: bool) -> tuple[list[int], bool]:
    """The token ids of `text`, and whether it lost its beginning to stay within `limit`. The special tokens that the
    tokenizer adds (`special`) stay: some classifiers read the first of them."""
    ids = tokenizer(text, add_special_tokens=special)["input_ids"]
    if limit is None or len(ids) <= limit:
        return ids, False
    side, tokenizer.truncation_side = tokenizer.truncation_side, "left"
    try:
        return tokenizer(text, add_special_tokens=special, truncation=True, max_length=limit)["input_ids"], True
    finally:
        tokenizer.truncation_side = side
