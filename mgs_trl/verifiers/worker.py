"""A worker process of the verifier pool: `python -m mgs_trl.verifiers.worker`, started by pool.py, never by
hand.

It reads frames from a private copy of stdin and answers on one of stdout; a verifier, and what it starts,
finds stdin empty and writes to stderr. A frame is `(target, time_limit, memory_mb, tasks)`: `target` is
"package.module:function" and each task `(ticket, pickled arguments)` calls `function(*arguments)`, or
`function(**arguments)` if they are a dict. Answers are `("ready",)` at the start, `("loaded", None | error)`
when a target was imported, then for each task `("done", ticket, value)` or `("failed", ticket, exception
type, message, traceback)`.

The worker leaves no orphan: it ends on EOF, when its parent has changed, and, when it is stuck in a task
and its parent is gone, by an alarm of the kernel whose default action kills it without Python's help.
"""

from __future__ import annotations

import importlib
import os
import pickle
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from mgs_trl.verifiers.protocol import FrameBuffer, encode

PARENT_POLL = 2.0  # seconds between looks at the parent while idle
ALARM_GRACE = 5.0  # seconds after the time limit; the pool kills at the limit itself, when it still exists
EXCERPT = 4000  # characters of a message or traceback that travel back


def resolve(target: str) -> Callable[..., Any]:
    """Import "package.module:function"; its module's `warm_up()`, where there is one, runs once."""
    module_name, _, attribute = target.partition(":")
    module = importlib.import_module(module_name)
    function = module
    for part in attribute.split("."):
        function = getattr(function, part)
    warm_up = getattr(module, "warm_up", None)
    if callable(warm_up):
        warm_up()
    return function  # pyright: ignore[reportReturnType]


def _limit_memory(megabytes: int | None) -> None:
    """Let this process add `megabytes` to the address space it holds now, which earlier verifiers left; None
    lifts the limit."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = hard if megabytes is None else _address_space() + megabytes * 2**20
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    """Bytes of address space of this process; 0 on systems without /proc, which do not enforce the limit either."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _attempt(ticket: int, function: Callable[..., Any], pickled: bytes, time_limit: float) -> tuple:
    signal.setitimer(signal.ITIMER_REAL, time_limit + ALARM_GRACE)
    try:
        arguments = pickle.loads(pickled)
        value = function(**arguments) if isinstance(arguments, dict) else function(*arguments)
        return ("done", ticket, value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        trace = traceback.format_exc(limit=-8)
        return ("failed", ticket, type(error).__name__, str(error)[:EXCERPT], trace[-EXCERPT:])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _frames(stdin: int, parent: int):
    buffer = FrameBuffer()
    while True:
        if not select.select([stdin], [], [], PARENT_POLL)[0]:
            if os.getppid() != parent:
                return
            continue
        data = os.read(stdin, 1 << 20)
        if not data:
            return
        yield from buffer.feed(data)


def _private_pipes() -> tuple[int, int]:
    """The pipes of the protocol, moved to where neither a verifier nor a program it starts reads or writes."""
    requests, replies = os.dup(0), os.dup(1)  # not inherited by programs
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies


def main() -> None:
    parent = os.getppid()
    requests, replies = _private_pipes()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def reply(message: tuple) -> None:
        view = memoryview(encode(message))
        while view:
            view = view[os.write(replies, view) :]

    functions: dict[str, Callable[..., Any]] = {}
    reply(("ready",))
    for target, time_limit, memory_mb, tasks in _frames(requests, parent):
        if target not in functions:
            try:
                functions[target] = resolve(target)
            except BaseException as error:
                reply(("loaded", f"{type(error).__name__}: {error}"[:EXCERPT]))
                continue
            reply(("loaded", None))
        _limit_memory(memory_mb)
        for ticket, pickled in tasks:
            answer = _attempt(ticket, functions[target], pickled, time_limit)
            try:
                reply(answer)
            except OSError:  # the pool is gone
                return
            except Exception as error:
                reply(("failed", ticket, type(error).__name__, str(error)[:EXCERPT], ""))
        _limit_memory(None)


if __name__ == "__main__":
    main()
