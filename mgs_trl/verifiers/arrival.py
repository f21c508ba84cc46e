"""No rank waits in a verifier's collective for one that has failed and will never come.

Before such a collective each rank says in the store of the process group that it has arrived, and waits until
all others have arrived or failed. A rank does one or the other, so all that wait decide alike.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from mgs_trl.verifiers.errors import VerifierError

POLL = 0.005  # seconds between looks at the store
PATIENCE = 1800.0  # seconds; as long as a process group waits


@contextlib.contextmanager
def failure_announced() -> Iterator[None]:
    """Tell the other ranks that wait in `Arrivals` of an exception, which is then raised."""
    try:
        yield
    except Exception as error:
        import torch.distributed as dist

        if dist.is_initialized():
            _store().set(f"failed/{dist.get_rank()}", f"{type(error).__name__}: {error}")
        raise


class Arrivals:
    """The meetings of `ranks` before one kind of collective, `scope`."""

    def __init__(self, scope: str, ranks: Sequence[int]) -> None:
        self.scope, self.ranks = scope, ranks
        self.meetings = 0

    def wait(self) -> None:
        """Return when all ranks have arrived; raises VerifierError with the cause when one failed before."""
        import torch.distributed as dist

        store = _store()
        self.meetings += 1
        store.set(self._key(dist.get_rank()), str(self.meetings))
        missing, end = list(self.ranks), time.monotonic() + PATIENCE
        while missing := [rank for rank in missing if not self._arrived(store, rank)]:
            if time.monotonic() > end:
                raise VerifierError(f"ranks {missing} did not come to {self.scope} within {PATIENCE:g} s")
            time.sleep(POLL)

    def _arrived(self, store: Any, rank: int) -> bool:
        # The failure is looked up first: one that follows the arrival is not this meeting's.
        failed = store.check([f"failed/{rank}"])
        key = self._key(rank)
        if store.check([key]) and int(store.get(key)) >= self.meetings:
            return True
        if failed:
            raise VerifierError(f"scoring failed on rank {rank}: {store.get(f'failed/{rank}').decode()}")
        return False

    def _key(self, rank: int) -> str:
        return f"arrived/{self.scope}/{rank}"


def _store() -> Any:
    from torch.distributed import distributed_c10d

    return distributed_c10d.PrefixStore("mgs_trl.verifiers", distributed_c10d._get_default_store())
