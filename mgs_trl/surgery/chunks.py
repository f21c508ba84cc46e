"""Long vectors chunk by chunk: on a CPU, chunks that fit a core's cache, divided among threads."""

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

# Elements of each gradient that are in flight at once: few enough for a core's cache on a CPU, enough on a GPU that
# kernel launches do not count.
CPU_CHUNK = 1 << 17
DEVICE_CHUNK = 1 << 24

# As they are before vLLM's CPU worker replaces the one by a function that does nothing and ties the calling thread,
# hence the threads that it starts, to one core.
_set_threads = torch.set_num_threads
_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def chunk_size(device: torch.device) -> int:
    """Elements per chunk on `device`."""
    return CPU_CHUNK if device.type == "cpu" else DEVICE_CHUNK


def for_each_chunk(length: int, size: int, device: torch.device, work: Callable[[range], None]) -> None:
    """Call `work` with the starts of all chunks, split among torch's CPU threads where that pays.

    Within a chunk torch's own threads have too little to do; a thread per run of chunks keeps every core busy.

    Args:
        length: elements of the vector.
        size: elements per chunk.
        device: where `work` computes; on another device than the CPU all chunks are one call's.
        work: takes a `range` of starts. Calls on disjoint ranges must be independent of each other.
    """
    if length == 0:
        return
    starts = range(0, length, size)
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(starts) < 2:
        work(starts)
        return
    share = -(-len(starts) // threads)
    runs = [starts[first : first + share] for first in range(0, len(starts), share)]
    for future in [_pool(threads).submit(work, run) for run in runs]:
        future.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that each run torch's operations on themselves alone; torch's setting for others is left as it was."""
    started = threading.Barrier(threads + 1)

    def alone() -> None:
        _set_threads(1)
        if _CORES is not None:
            os.sched_setaffinity(0, _CORES)  # of this thread alone
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="mgs_trl-surgery", initializer=alone)
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    _set_threads(threads)  # threads that start later take the value that was set last
    return pool
