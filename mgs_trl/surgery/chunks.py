"""Long vectors chunk by chunk: on a CPU, chunks that fit a core's cache, divided among threads."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch

# Elements of each gradient that are in flight at once: few enough for a core's cache on a CPU, enough on a GPU that
# kernel launches do not count.
CPU_CHUNK = 1 << 17
DEVICE_CHUNK = 1 << 24
# Elements of a pass from which on a second thread gains more than the two lose waiting for each other's Python.
WORTH_THREADS = 1 << 23

# As they are before vLLM's CPU worker replaces the one by a function that does nothing and ties the calling thread,
# hence the threads that it starts, to one core.
_set_threads = torch.set_num_threads
_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


class Chunk(NamedTuple):
    """Elements `start` to `stop` of the vector with number `vector`."""

    vector: int
    start: int
    stop: int


def cut(lengths: Sequence[int], device: torch.device) -> list[Chunk]:
    """The chunks, in order, of vectors of these lengths that are computed on `device`; empty vectors have none."""
    size = CPU_CHUNK if device.type == "cpu" else DEVICE_CHUNK
    return [
        Chunk(vector, start, min(start + size, length))
        for vector, length in enumerate(lengths)
        for start in range(0, length, size)
    ]


def for_each(chunks: Sequence[Chunk], device: torch.device, work: Callable[[Sequence[Chunk]], None]) -> None:
    """Call `work` with runs of chunks that together are all of them, divided among torch's CPU threads.

    Within a chunk torch's own threads have too little to do; a thread per run of chunks keeps every core busy. Few
    elements are one run.

    Args:
        chunks: from `cut`.
        device: where `work` computes; on another device than the CPU all chunks are one run.
        work: calls on disjoint runs must be independent of each other.
    """
    threads = torch.get_num_threads()
    elements = sum(chunk.stop - chunk.start for chunk in chunks)
    if device.type != "cpu" or threads == 1 or len(chunks) < 2 or elements < WORTH_THREADS:
        if chunks:
            work(chunks)
        return
    with _pool(threads) as pool:
        for future in [pool.submit(work, run) for run in _runs(chunks, threads)]:
            future.result()


def _runs(chunks: Sequence[Chunk], count: int) -> list[Sequence[Chunk]]:
    """At most `count` runs of consecutive chunks with about equally many elements."""
    share = sum(chunk.stop - chunk.start for chunk in chunks) / count
    runs: list[list[Chunk]] = [[] for _ in range(count)]
    done = 0
    for chunk in chunks:
        middle = done + (chunk.stop - chunk.start) / 2
        runs[min(int(middle / share), count - 1)].append(chunk)
        done += chunk.stop - chunk.start
    return [run for run in runs if run]


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each run torch's operations on themselves alone; torch's setting for others is left as it was.

    They are started anew each time, a matter of 0.1 ms. Were they kept, OpenMP would count more threads than cores
    and have its own sleep where they otherwise spin: all of torch's short operations took half as long again.
    """
    started = threading.Barrier(threads + 1)

    def alone() -> None:
        try:
            _set_threads(1)
            if _CORES is not None:
                os.sched_setaffinity(0, _CORES)  # of this thread alone
        except BaseException:
            started.abort()
            raise
        started.wait()

    with ThreadPoolExecutor(threads, thread_name_prefix="mgs_trl-surgery", initializer=alone) as pool:
        try:
            for _ in range(threads):
                pool.submit(int)
            started.wait()
        except BaseException:
            started.abort()  # the system may have no more threads to give: those that did start wait for the rest
            raise
        finally:
            _set_threads(threads)  # threads that start later take the value that was set last
        yield pool
