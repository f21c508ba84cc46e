"""Which run comes next: none before those it needs, none twice, and none after one that it needs has failed."""

from collections.abc import Iterable

from mgs_trl.study.plan import Run


class Schedule:
    """Hands out runs in their order.

    Args:
        runs: all runs of the study.
        finished: names of those that need not run again.

    Attributes:
        failed: why each run that did not finish did not, by name.
    """

    def __init__(self, runs: Iterable[Run], finished: Iterable[str]):
        self.finished = set(finished)
        self.failed: dict[str, str] = {}
        self._waiting = [run for run in runs if run.name not in self.finished]
        self._running: set[str] = set()

    @property
    def left(self) -> int:
        """Runs that are waiting or running."""
        return len(self._waiting) + len(self._running)

    def take(self) -> Run | None:
        """The next run that can start now; None if there is none, now or ever."""
        for run in self._waiting:
            if self.finished.issuperset(run.needs):
                self._waiting.remove(run)
                self._running.add(run.name)
                return run
        return None

    def done(self, run: Run) -> None:
        """`run` has finished."""
        self._running.remove(run.name)
        self.finished.add(run.name)

    def fail(self, run: Run, reason: str) -> None:
        """`run` has failed, and with it whatever needs it."""
        self._running.remove(run.name)
        self.failed[run.name] = reason
        self._give_up()

    def _give_up(self) -> None:
        while True:
            hopeless = [run for run in self._waiting if self.failed.keys() & set(run.needs)]
            if not hopeless:
                return
            for run in hopeless:
                self._waiting.remove(run)
                self.failed[run.name] = f"needs {min(self.failed.keys() & set(run.needs))}, which failed"
