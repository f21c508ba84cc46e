"""Prompts that nothing can be drawn from."""

from typing import Any

from datasets import Dataset


def check_prompts(data: Any, column: str, processor: Any) -> None:
    """Refuse a prompt without a token: vLLM takes none, and transformers would go on from padding.

    Args:
        data: a dataset, several by name, or None. A stream is not looked at.
        column: of the domain's name, for the message; the data need not have it.
        processor: the trainer's tokenizer or processor.

    Raises:
        ValueError: names the row and its domain.
    """
    for part in data.values() if isinstance(data, dict) else [data]:
        if not isinstance(part, Dataset) or "prompt" not in part.column_names:
            continue
        prompts = part["prompt"]
        if not isinstance(next(iter(prompts), None), str):
            continue  # messages: their template writes some
        for row, prompt in enumerate(prompts):
            if prompt is not None and not prompt.strip() and not processor(text=[prompt])["input_ids"][0]:
                domain = f" (domain {part[row][column]!r})" if column in part.column_names else ""
                raise ValueError(
                    f"row {row} of the data{domain} has the prompt {prompt!r}, but it must have at least one token."
                )
