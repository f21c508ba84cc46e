"""Replicas of a server behind circuit breakers: one that keeps failing is left alone for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence


class Replica:
    """One address. `limit` failures in a row open its breaker for `pause` seconds; then one request may try
    again."""

    def __init__(self, url: str, limit: int, pause: float, clock: Callable[[], float]) -> None:
        self.url, self.limit, self.pause, self.clock = url, limit, pause, clock
        self.failures = 0
        self.closed_until = 0.0  # requests are refused before that time
        self.active = 0

    @property
    def available(self) -> bool:
        return self.clock() >= self.closed_until

    def failed(self) -> None:
        self.failures += 1
        if self.failures >= self.limit:
            self.closed_until = self.clock() + self.pause

    def succeeded(self) -> None:
        self.failures = 0
        self.closed_until = 0.0


class Replicas:
    """Chooses the available replica with the fewest requests in flight. Safe for threads."""

    def __init__(
        self,
        urls: Sequence[str],
        limit: int = 5,
        pause: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.replicas = [Replica(url, limit, pause, clock) for url in urls]
        self._lock = threading.Lock()

    def acquire(self, avoid: str | None = None) -> Replica | None:
        """A replica to send to, another than `avoid` if there is a choice; None if all breakers are open."""
        with self._lock:
            available = [replica for replica in self.replicas if replica.available]
            if not available:
                return None
            chosen = min(available, key=lambda replica: (replica.url == avoid, replica.active))
            chosen.active += 1
            if chosen.failures >= chosen.limit:
                chosen.closed_until = chosen.clock() + chosen.pause  # this request is the only trial
            return chosen

    def release(self, replica: Replica, ok: bool) -> None:
        """Report how the request to `replica` ended."""
        with self._lock:
            replica.active -= 1
            replica.succeeded() if ok else replica.failed()
