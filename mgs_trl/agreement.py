"""When one rank fails while the others wait for it in a collective: every rank learns the cause and stops."""

from collections.abc import Callable
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather, gather_object
from torch import Tensor


class RankError(RuntimeError):
    """Raised on every rank that did not fail itself; the message holds which did, and why."""


def rewards_of_all_ranks(accelerator: Accelerator, score: Callable[[], Tensor], rows: int, functions: int) -> Tensor:
    """Rewards of all ranks, or an exception on all of them.

    TRL scores on every rank for itself and then gathers. A rank whose verifier raised never came to that gather, and
    the others waited there. Here it joins it with NaN, and one number per rank says whether anyone failed.

    Args:
        accelerator: of the run.
        score: TRL's scoring; its last act is to gather a float32 `[rows, functions]` over ranks.
        rows, functions: of this rank.

    Raises:
        RankError: another rank failed.
        Exception: whatever `score` raised, on the rank that failed.
    """
    if accelerator.num_processes == 1:
        return score()
    failure: Exception | None = None
    try:
        rewards = score()
    except Exception as error:
        failure = error
        rewards = gather(torch.full((rows, functions), torch.nan, device=accelerator.device))
    failed = torch.tensor([failure is not None], dtype=torch.float32, device=accelerator.device)
    if not cast(Tensor, accelerator.reduce(failed, reduction="sum")).item():
        return rewards  # pyright: ignore[reportReturnType]
    cause = None if failure is None else f"rank {accelerator.process_index}: {type(failure).__name__}: {failure}"
    causes = [cause for cause in gather_object([cause]) if cause is not None]
    if failure is not None:
        raise failure
    raise RankError("scoring failed on another rank; " + "; ".join(causes))
