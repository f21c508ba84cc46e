"""Padding that a block of rows can do without: a domain of short rows does not compute at another's width."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

#: Rotary embeddings whose frequencies do not follow from the length of the input.
FIXED_FREQUENCIES = ("default", "linear", "llama3", "yarn")
#: Layers that see nothing of a row's padding. Convolutions, recurrences and sparse attention by blocks may.
BLIND_LAYERS = ("full_attention", "sliding_attention")
OTHER_LAYERS = ("attention_chunk_size", "conv_L_cache", "lru_width")  # in a config without `layer_types`


def can_do_without_padding(policy: Any) -> bool:
    """Whether rows of a policy may lose the padding before their prompts."""
    adapters = (getattr(policy, "peft_config", None) or {}).values()
    # Tokens that prompt tuning learns stand before the padding.
    learned = any(getattr(adapter, "is_prompt_learning", False) for adapter in adapters)
    return not learned and positions_are_relative(policy.config.get_text_config())


def positions_are_relative(config: Any) -> bool:
    """Whether a policy computes the same for a row wherever the row begins, but for rounding.

    Prompts are padded on the left, and TRL counts positions from the first column: without that padding every token of
    the row has a smaller position. Rotary embeddings see differences of positions alone.

    Args:
        config: of the text model, as transformers has it.
    """
    rope = getattr(config, "rope_parameters", None)
    if not rope or any(getattr(config, name, None) for name in OTHER_LAYERS):
        return False
    if not set(getattr(config, "layer_types", None) or ()) <= set(BLIND_LAYERS):
        return False
    layers = [rope] if "rope_type" in rope else list(rope.values())
    return all(isinstance(layer, dict) and layer.get("rope_type") in FIXED_FREQUENCIES for layer in layers)


def trim(rows: dict[str, Any], prompts: Sequence[int], completions: Sequence[int], multiple: int) -> dict[str, Any]:
    """`rows` without the columns that are padding in all of them; at least one column of each part stays.

    Args:
        rows: of a generation batch, in TRL's form: prompts padded on the left, completions on the right.
        prompts: tokens of each row's prompt; empty to leave prompts as they are.
        completions: tokens of each row's completion.
        multiple: what widths are multiples of.
    """
    before, after = rows["prompt_ids"].size(1), rows["completion_ids"].size(1)
    first = before - min(before, _up(max(1, *prompts), multiple)) if prompts else 0
    width = min(after, _up(max(1, *completions), multiple))
    columns = {before + after: slice(first, before + width), after: slice(width)}
    kept = {}
    for name, value in rows.items():
        if isinstance(value, Tensor) and value.dim() == 2:
            value = (
                value[:, first:] if name.startswith("prompt_") else value[:, columns.get(value.size(1), slice(None))]
            )
        kept[name] = value
    return kept


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
