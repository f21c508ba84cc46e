"""A pool of killable worker processes: a sample that hangs costs one worker and its time limit, never the
run.

Plain `subprocess` children speaking over pipes (worker.py), not `multiprocessing`: spawn would import the
user's `__main__` again and fork would copy a process that holds CUDA and threads. Tasks travel in chunks,
answers come one by one, so the limit is per sample while the cost of the pipe is per chunk.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from mgs_trl.verifiers.protocol import FrameBuffer, encode

START_LIMIT = 120.0  # seconds for a worker to start or import a verifier; not charged to any sample
CHUNK_BYTES = 1 << 20  # a chunk is closed at this size
CHUNK_TASKS = 32
MAX_TASKS = 50_000  # a worker is replaced after that many, so caches of third parties cannot grow for ever


Arguments = tuple[Any, ...] | dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one task. `kind`: "done", "failed" (it raised), "timeout" or "crash" (its worker
    died)."""

    kind: str
    value: Any = None
    error: str = ""
    trace: str = ""


class PoolError(RuntimeError):
    """The pool itself cannot work: a worker does not start or a verifier cannot be imported."""


class _Worker:
    """One child process with what it has been given and has not yet answered."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mgs_trl.verifiers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C of the terminal is the parent's to handle
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = (self.process.stdin.fileno(), self.process.stdout.fileno())
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)
        self.frames = FrameBuffer()
        self.outgoing = memoryview(b"")
        self.tickets: deque[int] = deque()  # in the order the worker handles them
        self.loaded: set[str] = set()
        self.loading = True  # starting, or importing a target: no sample is running
        self.served = 0
        self.deadline = time.monotonic() + START_LIMIT

    def kill(self) -> None:
        """End the worker and everything it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


class WorkerPool:
    """`workers` processes, started at the first use, replaced when they hang or die.

    `run` may be called from any thread; calls take turns.
    """

    def __init__(self, workers: int | None = None, chunk_tasks: int = CHUNK_TASKS, max_tasks: int = MAX_TASKS) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.size = workers or default_workers()
        self.chunk_tasks, self.max_tasks = chunk_tasks, max_tasks
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._closed = False
        atexit.register(self.close)

    @property
    def processes(self) -> list[int]:
        """Ids of the worker processes that exist now."""
        return [worker.process.pid for worker in self._workers]

    def run(
        self, target: str, tasks: Sequence[Arguments], time_limit: float = 10.0, memory_mb: int | None = None
    ) -> list[Outcome]:
        """Call `target` ("package.module:function") once per tuple (or dict) of arguments; outcomes in
        their order.

        `time_limit`: seconds per sample. `memory_mb`: address space the samples may add to what their worker
        holds when they start; over it, one fails with MemoryError. Raises `PoolError` when workers cannot
        start or the target cannot be imported.
        """
        with self._lock:
            if self._closed:
                raise PoolError("the verifier pool was closed")
            run = _Run(self, target, tasks, time_limit, memory_mb)
            try:
                return run.finish()
            except BaseException:
                self._discard_busy()  # Ctrl-C or a PoolError: no answer of this run may reach the next one
                raise

    def close(self) -> None:
        """Kill all workers. Safe to call twice, and in a forked child, where it does nothing."""
        if os.getpid() != self._owner:
            return
        self._closed = True
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.kill()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ensure(self, count: int) -> list[_Worker]:
        # A dead one that was given tasks is its run's, which has still to read of its end and give them to another.
        for worker in [w for w in self._workers if not (w.tickets or w.loading or w.outgoing)]:
            if worker.served >= self.max_tasks or worker.process.poll() is not None:
                self._drop(worker)
        while len(self._workers) < min(self.size, count):
            self._workers.append(_Worker(_environment()))
        return list(self._workers)

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.kill()

    def _discard_busy(self) -> None:
        for worker in [w for w in self._workers if w.tickets or w.loading or w.outgoing]:
            self._drop(worker)


class _Run:
    """One call of `WorkerPool.run`: hands out chunks, collects answers, kills what exceeds its deadline."""

    def __init__(
        self,
        pool: WorkerPool,
        target: str,
        tasks: Sequence[Arguments],
        time_limit: float,
        memory_mb: int | None,
    ) -> None:
        self.pool, self.target, self.tasks = pool, target, tasks
        self.time_limit, self.memory_mb = time_limit, memory_mb
        self.outcomes: list[Outcome | None] = [None] * len(tasks)
        self.waiting: deque[int] = deque(range(len(tasks)))
        self.open = len(tasks)
        self.failed_starts = 0
        self.selector = selectors.DefaultSelector()

    def finish(self) -> list[Outcome]:
        with self.selector:
            self._staff()
            while self.open:
                for key, events in self.selector.select(self._patience()):
                    worker = key.data
                    if worker not in self.pool._workers:
                        continue
                    if events & selectors.EVENT_WRITE:
                        self._send(worker)
                    if events & selectors.EVENT_READ and key.fd == worker.stdout:
                        self._receive(worker)
                self._reap()
        return self.outcomes  # pyright: ignore[reportReturnType]  # all set: open is 0

    def _staff(self) -> None:
        workers = self.pool._ensure(len(self.waiting))
        for key in [key for key in self.selector.get_map().values() if key.data not in workers]:
            self.selector.unregister(key.fd)  # of a dropped worker; a new one may have its number
        registered = {key.data for key in self.selector.get_map().values()}
        for worker in workers:
            if worker not in registered:
                self.selector.register(worker.stdout, selectors.EVENT_READ, worker)
            if not worker.tickets and not worker.outgoing and not worker.loading:
                self._give(worker)

    def _give(self, worker: _Worker) -> None:
        if not self.waiting:
            return
        fair = -(-len(self.waiting) // self.pool.size)
        chunk, size = [], 0
        while self.waiting and len(chunk) < min(fair, self.pool.chunk_tasks) and size < CHUNK_BYTES:
            ticket = self.waiting.popleft()
            try:
                pickled = pickle.dumps(self.tasks[ticket], protocol=pickle.HIGHEST_PROTOCOL)
            except Exception as error:  # of a kind that what is pickled chooses
                self._settle(ticket, Outcome("failed", error=f"{type(error).__name__}: {error}"))
                continue
            chunk.append((ticket, pickled))
            size += len(pickled)
        if not chunk:
            return
        worker.tickets.extend(ticket for ticket, _ in chunk)
        worker.outgoing = memoryview(encode((self.target, self.time_limit, self.memory_mb, chunk)))
        worker.loading = self.target not in worker.loaded
        worker.deadline = time.monotonic() + (START_LIMIT if worker.loading else self.time_limit)
        self._send(worker)

    def _send(self, worker: _Worker) -> None:
        registered = worker.stdin in self.selector.get_map()
        try:
            while worker.outgoing:
                worker.outgoing = worker.outgoing[os.write(worker.stdin, worker.outgoing) :]
        except BlockingIOError:
            if not registered:
                self.selector.register(worker.stdin, selectors.EVENT_WRITE, worker)
            return
        except OSError:  # died; reading its stdout says so next
            worker.outgoing = memoryview(b"")
        if registered:
            self.selector.unregister(worker.stdin)
        if not worker.loading:
            worker.deadline = time.monotonic() + self.time_limit  # a long transfer is not the sample's time

    def _receive(self, worker: _Worker) -> None:
        try:
            data = os.read(worker.stdout, 1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(worker)
            return
        for message in worker.frames.feed(data):
            self._handle(worker, message)
        if not worker.tickets and not worker.loading:
            if worker.served >= self.pool.max_tasks:
                self._remove(worker)
                self._staff()
            else:
                self._give(worker)

    def _handle(self, worker: _Worker, message: tuple) -> None:
        worker.deadline = time.monotonic() + self.time_limit
        kind = message[0]
        if kind == "ready":
            worker.loading = False
        elif kind == "loaded":
            if message[1] is not None:
                raise PoolError(f"verifier {self.target!r} cannot be loaded in a worker process: {message[1]}")
            worker.loading = False
            worker.loaded.add(self.target)
        else:
            ticket = message[1]
            worker.tickets.remove(ticket)
            worker.served += 1
            if kind == "done":
                self._settle(ticket, Outcome("done", value=message[2]))
            else:
                self._settle(ticket, Outcome("failed", error=f"{message[2]}: {message[3]}", trace=message[4]))

    def _settle(self, ticket: int, outcome: Outcome) -> None:
        self.outcomes[ticket] = outcome
        self.open -= 1

    def _lost(self, worker: _Worker) -> None:
        """The worker died by itself: while starting, or in the task at the head of its queue."""
        code = worker.process.wait()
        if worker.loading:
            self.failed_starts += 1
            if self.failed_starts >= 3:
                raise PoolError(f"verifier workers for {self.target!r} die while starting, exit status {code}")
        elif worker.tickets:
            self._settle(worker.tickets.popleft(), Outcome("crash", error=f"worker died with exit status {code}"))
        self._replace(worker)

    def _reap(self) -> None:
        now = time.monotonic()
        for worker in [w for w in self.pool._workers if (w.tickets or w.loading) and w.deadline <= now]:
            if worker.loading:
                raise PoolError(f"a verifier worker took over {START_LIMIT:g} s to load {self.target!r}")
            self._settle(worker.tickets.popleft(), Outcome("timeout", error=f"over {self.time_limit:g} s"))
            self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        self.waiting.extendleft(reversed(worker.tickets))
        self._remove(worker)
        if self.waiting:
            self._staff()

    def _remove(self, worker: _Worker) -> None:
        for stream in (worker.stdin, worker.stdout):
            if stream in self.selector.get_map():
                self.selector.unregister(stream)
        self.pool._drop(worker)

    def _patience(self) -> float:
        busy = [worker.deadline for worker in self.pool._workers if worker.tickets or worker.loading]
        return max(0.0, min(busy) - time.monotonic()) if busy else 1.0


def default_workers() -> int:
    """min(4, this rank's share of the cores), at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(4, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1") or 1)))


def _environment() -> dict[str, str]:
    """The parent's, with its import path (for the user's own verifiers) and one thread per worker."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


_shared: WorkerPool | None = None
_shared_lock = threading.Lock()


def shared_pool() -> WorkerPool:
    """The pool of this process, made at the first call (and again after a fork)."""
    global _shared
    with _shared_lock:
        if _shared is None or _shared._closed or _shared._owner != os.getpid():
            _shared = WorkerPool()
        return _shared


def configure_pool(workers: int | None = None, max_tasks: int = MAX_TASKS) -> WorkerPool:
    """Replace the shared pool; `workers=None` is min(4, cores of this rank)."""
    global _shared
    pool = WorkerPool(workers, max_tasks=max_tasks)
    with _shared_lock:
        if _shared is not None:
            _shared.close()
        _shared = pool
    return pool
