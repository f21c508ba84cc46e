"""When one rank fails while the others wait for it in a collective: every rank learns the cause and stops."""

import logging
import pickle
from collections.abc import Callable
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object
from torch import Tensor

from mgs_trl.verifiers.arrival import failure_announced

logger = logging.getLogger(__name__)


class RankError(RuntimeError):
    """Raised on every rank that did not fail itself; the message holds which did, and why."""


def rewards_of_all_ranks(accelerator: Accelerator, score: Callable[[], Tensor], rows: int, functions: int) -> Tensor:
    """Rewards of all ranks, or an exception on all of them.

    TRL scores on every rank for itself and then gathers. A rank whose verifier raised never came to that gather, and
    the others waited there. Here it joins it with NaN, and one number per rank says whether anyone failed.
    Verifiers with a collective of their own (`share: node`) hear of the failure before they enter it.

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
        with failure_announced():
            rewards = score()
    except Exception as error:
        failure = error
        # Should a collective hang all the same, the cause has been said.
        logger.exception("scoring failed on rank %d", accelerator.process_index)
        rewards = gather(torch.full((rows, functions), torch.nan, device=accelerator.device))
    failed = torch.tensor([failure is not None], dtype=torch.float32, device=accelerator.device)
    if not cast(Tensor, accelerator.reduce(failed, reduction="sum")).item():
        return rewards  # pyright: ignore[reportReturnType]
    cause = None if failure is None else f"rank {accelerator.process_index}: {type(failure).__name__}: {failure}"
    causes = [cause for cause in gather_object([cause]) if cause is not None]
    if failure is not None:
        raise failure
    raise RankError("scoring failed on another rank; " + "; ".join(causes))


def from_main_process(
    accelerator: Accelerator | PartialState,
    act: Callable[[], Any],
    others: Callable[[], Any] | None = None,
    finish: Callable[[], Any] | None = None,
) -> Any:
    """What `act` returns on the main process, on every rank; or its exception on every rank.

    Args:
        accelerator: of the run.
        act: what the main process does.
        others: what the other ranks do meanwhile.
        finish: what the main process does after `act`, also when that raised: collectives that the others enter.

    Raises:
        Exception: whatever `act` raised; on the other ranks a RankError with its sentence where it cannot be sent.
    """
    if not accelerator.is_main_process:
        if others is not None:
            others()
        outcome: list[Any] = [None, None]
        broadcast_object_list(outcome, from_process=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]
    failure: Exception | None = None
    result: Any = None
    try:
        result = act()
    except Exception as error:
        failure = error
    if finish is not None:
        finish()
    broadcast_object_list([result, _portable(failure)], from_process=0)
    if failure is not None:
        raise failure
    return result


def _portable(error: Exception | None) -> Exception | None:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RankError(f"{type(error).__name__}: {error}")
    return error
