"""Worker processes that each import once and then do many runs, one after another."""

import contextlib
import functools
import gc
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from mgs_trl.study.plan import Run
from mgs_trl.study.schedule import Schedule

END_LIMIT = 10.0  # seconds for an idle worker to end


def work_off(
    schedule: Schedule,
    target: str,
    environments: Sequence[Mapping[str, str]],
    on_end: Callable[[Run, str | None], None] = lambda run, reason: None,
) -> None:
    """Do all runs of `schedule`, in one worker process per environment.

    A run that raises fails, and its worker goes on; a worker that dies fails its run and is replaced. Whatever ends
    this process ends the workers too.

    Args:
        target: `package.module:function`, called with a run in a worker.
        environments: variables that each worker sets before it imports the target.
        on_end: called here after each run, with the reason if it failed.
    """
    workers: list[_Worker | None] = [None] * len(environments)
    try:
        while schedule.left:
            for i, worker in enumerate(workers):
                if worker is not None and worker.run is not None:
                    continue
                run = schedule.take()
                if run is None:
                    break
                worker = workers[i] = worker or _Worker(target, environments[i])
                worker.start(run)
            busy = {worker.answers: i for i, worker in enumerate(workers) if worker is not None and worker.run}
            for answers in connection.wait(list(busy)):
                i = busy[answers]  # pyright: ignore[reportArgumentType]
                worker = workers[i]
                assert worker is not None and worker.run is not None
                run, reason, alive = worker.finish()
                workers[i] = worker if alive else None
                if reason is None:
                    schedule.done(run)
                else:
                    schedule.fail(run, reason)
                on_end(run, reason)
    finally:
        for worker in workers:
            if worker is not None:
                worker.end()


class _Worker:
    """One process and the run it is at."""

    def __init__(self, target: str, environment: Mapping[str, str]):
        context = multiprocessing.get_context("spawn")
        self.answers, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs, target, dict(environment)))
        self.process.start()
        theirs.close()  # so that its death is the end of the pipe
        self.run: Run | None = None

    def start(self, run: Run) -> None:
        self.run = run
        with contextlib.suppress(BrokenPipeError):  # it died between two runs: `finish` finds out
            self.answers.send(run)

    def finish(self) -> tuple[Run, str | None, bool]:
        """The run, why it failed (None if it did not), and whether the process lives."""
        assert self.run is not None
        run, self.run = self.run, None
        try:
            return run, self.answers.recv(), True
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.answers.close()
            return run, f"its process ended with exit code {self.process.exitcode}", False

    def end(self) -> None:
        """An idle process ends by itself when nothing can ask it any more; one at a run is killed."""
        self.answers.close()
        if self.run is None:
            self.process.join(END_LIMIT)
        self.process.kill()
        self.process.join()


def _serve(calls: Connection, target: str, environment: Mapping[str, str]) -> None:
    """The worker process: answers each run with None, or with why it failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    os.environ.update(environment)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            run = calls.recv()
        except EOFError:
            return
        run.directory.mkdir(parents=True, exist_ok=True)
        with _printed_to(run.directory.with_name(f"{run.directory.name}.txt")):
            try:
                _load(target)(run)
                reason = None
            except Exception as error:
                traceback.print_exc()
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
        gc.collect()
        calls.send(reason)


@functools.cache
def _load(target: str) -> Callable[[Run], None]:
    module, name = target.split(":")
    function = getattr(importlib.import_module(module), name)
    gc.collect()
    gc.freeze()  # collections between runs need not look at what was imported
    return function


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


@contextlib.contextmanager
def _printed_to(path: os.PathLike):  # type: ignore[no-untyped-def]
    """Everything that this process prints, C libraries included, goes to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(path, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for fd, own in zip(kept, (1, 2), strict=True):
            os.dup2(fd, own)
            os.close(fd)
