"""One call of vLLM for rows that are sampled differently: a request carries its own parameters."""

from typing import Any

import torch
from accelerate.utils import gather_object

from mgs_trl.rollouts.sampling import DomainSampling, Sampling
from mgs_trl.rollouts.served import ServedGeneration


def sample_by_row(generation: Any, sampling: DomainSampling) -> None:
    """Have a `VLLMGeneration` draw each row with its own settings, if any differ, and end it where they say.

    Args:
        generation: TRL's, of a colocated engine, or `ServedGeneration`.
        sampling: `sampling.rows` are those of the prompts that are generated, on this rank.
    """
    if any(each.stop for each in sampling.distinct):
        # Else vLLM does not see the special tokens that a stop string may name.
        generation.generation_kwargs = {"skip_special_tokens": False, **generation.generation_kwargs}
    if not sampling.differs:
        return
    if isinstance(generation, ServedGeneration):
        generation.row_requests = lambda count: gather_object([row.request() for row in _rows(sampling, count)])
        return
    engine, draw, generate = generation.llm, generation.llm.generate, generation.generate

    def draw_by_row(prompts: Any, sampling_params: Any, **options: Any) -> Any:
        if sampling_params.prompt_logprobs is not None:  # the weight check of an engine that slept asks about a text
            return draw(prompts, sampling_params=sampling_params, **options)
        rows = _rows(sampling, len(prompts) // generation.tensor_parallel_size)
        if generation.tensor_parallel_size > 1:  # the engine gets the prompts of the whole group
            parts: list[Any] = [None] * generation.tensor_parallel_size
            torch.distributed.all_gather_object(parts, rows, group=generation.tp_group)
            rows = [row for part in parts for row in part]
        parameters = [_with(sampling_params, row.request()) for row in rows]
        return draw(prompts, sampling_params=parameters, **options)

    def generate_by_row(*args: Any, **named: Any) -> Any:
        engine.generate = draw_by_row
        try:
            return generate(*args, **named)
        finally:
            engine.generate = draw  # a `rollout_func` asks the engine for what it likes

    generation.generate = generate_by_row


def _rows(sampling: DomainSampling, prompts: int) -> list[Sampling]:
    """Those of the batch, if it is what is generated: a `rollout_func` may ask for what it likes."""
    if prompts != len(sampling.rows):
        raise ValueError(
            f"vllm_generation.generate was called with {prompts} prompts, but sampling differs between domains and is "
            f"known for the {len(sampling.rows)} rows of the batch alone; give it one prompt for each."
        )
    return sampling.rows


def _with(parameters: Any, changes: dict[str, Any]) -> Any:
    """A copy of vLLM's `SamplingParams` with other values."""
    copy = parameters.clone()
    for name, value in changes.items():
        setattr(copy, name, value)
    copy.__post_init__()  # checks them, and sets what follows from them
    return copy
