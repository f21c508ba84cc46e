"""Replicas of a server behind circuit breakers: one that keeps failing is left alone for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class Replica:
    """One address. `limit` failures in a row open its breaker for `pause` seconds; then one request may try
    again.

    Requests in flight together fail together: a failure counts only if its request started `spacing` seconds
    or more after the failure counted last.
    """

    def __init__(self, url: str, limit: int, pause: float, spacing: float, clock: Callable[[], float]) -> None:
        self.url, self.limit, self.pause, self.spacing, self.clock = url, limit, pause, spacing, clock
        self.failures = 0
        self.failed_at = float("-inf")  # when the failure counted last was reported
        self.closed_until = 0.0  # requests are refused before that time
        self.active = 0

    @property
    def available(self) -> bool:
        return self.clock() >= self.closed_until

    def failed(self, started: float) -> None:
        if started < self.failed_at + self.spacing:
            return
        self.failures += 1
        self.failed_at = self.clock()
        if self.failures >= self.limit:
            self.closed_until = self.clock() + self.pause

    def succeeded(self) -> None:
        self.failures = 0
        self.failed_at = float("-inf")
        self.closed_until = 0.0


@dataclass(frozen=True)
class Request:
    """A request in flight to `replica`, since `started` (the clock's seconds)."""

    replica: Replica
    started: float


class Replicas:
    """Chooses the available replica with the fewest requests in flight. Safe for threads."""

    def __init__(
        self,
        urls: Sequence[str],
        limit: int = 5,
        pause: float = 30.0,
        spacing: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.replicas = [Replica(url, limit, pause, spacing, clock) for url in urls]
        self._lock = threading.Lock()

    def acquire(self, avoid: str | None = None) -> Request | None:
        """A request to a replica, another than `avoid` if there is a choice; None if all breakers are open."""
        with self._lock:
            available = [replica for replica in self.replicas if replica.available]
            if not available:
                return None
            chosen = min(available, key=lambda replica: (replica.url == avoid, replica.active))
            chosen.active += 1
            if chosen.failures >= chosen.limit:
                chosen.closed_until = chosen.clock() + chosen.pause  # this request is the only trial
            return Request(chosen, chosen.clock())

    def release(self, request: Request, ok: bool) -> None:
        """Report how `request` ended."""
        with self._lock:
            request.replica.active -= 1
            request.replica.succeeded() if ok else request.replica.failed(request.started)
