"""The pool survives whatever a sample does (demand.md 1d, R1, R2), keeps order, and leaves no process
behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mgs_trl.verifiers.pool import PoolError, WorkerPool, _Run, default_workers, shared_pool

ACT = "misbehaving:act"
HERE = Path(__file__).parent


@pytest.fixture
def pool():
    with WorkerPool(2, chunk_tasks=4) as pool:
        yield pool


def kinds(outcomes):
    return [outcome.kind for outcome in outcomes]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pids: list[int], seconds: float = 20.0) -> list[int]:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(alive, pids)):
        time.sleep(0.05)
    return [pid for pid in pids if alive(pid)]


def test_results_come_back_in_order_whatever_each_costs(pool):
    seconds = [0.05, 0.0, 0.03, 0.0, 0.01] * 5
    outcomes = pool.run("misbehaving:sleep", [(second,) for second in seconds])
    assert [outcome.value for outcome in outcomes] == seconds


def test_no_tasks_start_no_worker(pool):
    assert pool.run(ACT, []) == []
    assert pool.processes == []


@pytest.mark.parametrize("hang", ["hang", "hang in C"])
def test_r1_a_hang_costs_its_own_sample_only(pool, hang):
    start = time.monotonic()
    outcomes = pool.run(ACT, [("a",), (hang,), ("b",), ("c",), ("d",)], time_limit=1.0)
    assert kinds(outcomes) == ["done", "timeout", "done", "done", "done"]
    assert [outcome.value for outcome in outcomes if outcome.kind == "done"] == ["a", "b", "c", "d"]
    assert time.monotonic() - start < 30  # a guard: the limit was applied at all


def test_every_sample_hanging_still_ends(pool):
    assert kinds(pool.run(ACT, [("hang in C",)] * 4, time_limit=0.3)) == ["timeout"] * 4
    assert kinds(pool.run(ACT, [("after",)])) == ["done"]


def test_r2_a_raise_is_reported_with_its_trace_and_nothing_else_is_lost(pool):
    outcomes = pool.run(ACT, [("a",), ("raise",), ("b",)])
    assert kinds(outcomes) == ["done", "failed", "done"]
    assert outcomes[1].error == "RuntimeError: as asked"
    assert "misbehaving.py" in outcomes[1].trace


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        ("die", "crash"),
        ("exit", "failed"),
        ("memory", "failed"),
        ("unpicklable", "failed"),
        ("print", "done"),
    ],
)
def test_misbehaviour_never_reaches_the_neighbours(pool, act, kind):
    outcomes = pool.run(ACT, [("a",), (act,), ("b",)] * 3, memory_mb=1024)
    assert kinds(outcomes) == ["done", kind, "done"] * 3
    if act == "memory":
        assert outcomes[1].error.startswith("MemoryError")


def test_memory_limit_ends_with_its_samples(pool):
    pool.run(ACT, [("a",)], memory_mb=512)
    assert kinds(pool.run("misbehaving:echo", [(b"x" * 2**20,)] * 4)) == ["done"] * 4


def test_workers_that_die_together_lose_no_sample(pool, monkeypatch):
    lost = _Run._lost

    def lost_late(run, worker):
        time.sleep(0.3)  # meanwhile the other worker dies too
        lost(run, worker)

    pool.run(ACT, [("a",)] * 8)
    pool.run("misbehaving:sleep", [(0.5,)] * 2)  # both workers have started
    monkeypatch.setattr(_Run, "_lost", lost_late)
    outcomes = pool.run(ACT, [("die",), ("a",), ("die",), ("b",)])
    assert kinds(outcomes) == ["crash", "done", "crash", "done"]


def test_the_memory_limit_does_not_count_what_other_verifiers_left_in_the_worker():
    with WorkerPool(1) as pool:
        pool.run("misbehaving:hold", [(1024,)])
        outcomes = pool.run("misbehaving:allocate", [(256,), (1024,), (256,)], memory_mb=512)
    assert kinds(outcomes) == ["done", "failed", "done"]
    assert outcomes[1].error.startswith("MemoryError")


def test_math_out_of_memory_is_no_wrong_answer():
    with WorkerPool(1) as pool:
        (outcome,) = pool.run(
            "mgs_trl.verifiers.math.judge:judge", [(r"\boxed{2^{9000000000}}", "5")], 60.0, memory_mb=64
        )
    assert outcome.error.startswith("MemoryError"), outcome


def test_big_samples_pass(pool):
    tasks = [("x" * size,) for size in (0, 1, 2**16, 2**20, 5 * 2**20)]
    assert [outcome.value for outcome in pool.run("misbehaving:echo", tasks)] == [task[0] for task in tasks]


@pytest.mark.parametrize("target", ["misbehaving:missing", "no_such_module:f", "misbehaving:not_a_function.x"])
def test_a_target_that_cannot_be_loaded_is_an_error_not_a_score(pool, target):
    with pytest.raises(PoolError, match=target.split(":")[0]):
        pool.run(target, [("a",)])
    assert kinds(pool.run(ACT, [("a",)])) == ["done"]


def test_workers_are_replaced_after_max_tasks():
    with WorkerPool(1, chunk_tasks=2, max_tasks=4) as pool:
        pids = [outcome.value for outcome in pool.run("misbehaving:pid", [(0,)] * 12)]
    assert len(set(pids)) == 3


def test_threads_take_turns(pool):
    results = {}

    def work(name):
        results[name] = [
            outcome.value for outcome in pool.run("misbehaving:echo", [(f"{name}{i}",) for i in range(50)])
        ]

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {name: [f"{name}{i}" for i in range(50)] for name in "abc"}


def test_workers_import_no_torch(pool):
    loaded = pool.run("builtins:eval", [("sorted(__import__('sys').modules)",)])[0].value
    assert not {"torch", "transformers", "trl"} & set(loaded)


def test_closed_pool_refuses_and_has_no_processes():
    pool = WorkerPool(2)
    pool.run(ACT, [("a",)] * 8)
    pids = pool.processes
    pool.close()
    assert wait_until_gone(pids) == []
    with pytest.raises(PoolError, match="closed"):
        pool.run(ACT, [("a",)])


def test_size_follows_the_ranks_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))
    sizes = {}
    for ranks in (1, 2, 8, 64):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        sizes[ranks] = default_workers()
    assert sizes == {1: 4, 2: 4, 8: 2, 64: 1}
    with pytest.raises(ValueError, match="workers"):
        WorkerPool(0)


def test_a_forked_child_does_not_use_or_close_the_parents_workers():
    shared = shared_pool()
    shared.run(ACT, [("a",)])
    before = shared.processes
    child = os.fork()
    if child == 0:
        code = 1
        try:
            shared.close()
            with shared_pool() as own:
                own.run(ACT, [("a",)])
                code = 0 if not set(own.processes) & set(before) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert kinds(shared.run(ACT, [("still",)])) == ["done"]
    assert shared.processes == before


SCRIPT = """
import sys, threading, time
sys.path.insert(0, {here!r})
from mgs_trl.verifiers.pool import WorkerPool
pool = WorkerPool(2)
pool.run("misbehaving:echo", [(1,)] * 8)
print(*pool.processes, flush=True)
{then}
"""
BUSY = "pool.run('misbehaving:act', [('hang in C',)] * 8, time_limit=3.0)"


def start(then: str) -> tuple[subprocess.Popen, list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(here=str(HERE), then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_no_orphans_however_the_parent_ends(how, busy):
    process, workers = start(BUSY if busy else "time.sleep(60)")
    assert len(workers) == 2
    time.sleep(0.3)
    process.send_signal(how)
    process.wait(20)
    assert wait_until_gone(workers) == []


def test_ctrl_c_in_a_run_leaves_a_pool_that_works():
    then = f"""
import misbehaving
threading.Timer(0.5, lambda: __import__("_thread").interrupt_main()).start()
try:
    {BUSY}
except KeyboardInterrupt:
    print([outcome.value for outcome in pool.run("misbehaving:echo", [(i,) for i in range(5)])], flush=True)
"""
    process, _ = start(then)
    assert process.stdout is not None
    assert process.stdout.read().strip() == "[0, 1, 2, 3, 4]"
    assert process.wait(20) == 0
