"""Throughput of the verifiers: in line, and isolated in pools of one and two workers.

    python benchmarks/verifiers.py [--samples 2000] [--json results.json]

Prints samples per second and what isolation adds per sample. "fast" answers of a math verifier cost little more than
the pipe, so they show the overhead; "typical" ones parse LaTeX.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable

from mgs_trl.verifiers import WorkerPool
from mgs_trl.verifiers.instructions import judge as ifeval_judge
from mgs_trl.verifiers.instructions.judge import warm_up as warm_up_ifeval
from mgs_trl.verifiers.math.judge import judge as math_judge
from mgs_trl.verifiers.math.judge import warm_up as warm_up_math

MATH, IFEVAL = "mgs_trl.verifiers.math.judge:judge", "mgs_trl.verifiers.instructions.judge:judge"
TEXT = "the model writes a long answer about rivers, towns and numbers before it comes to its point."
WORDS = TEXT.split()
CONSTRAINTS = [
    ("punctuation:no_comma", {}),
    ("length_constraints:number_words", {"num_words": 100, "relation": "at least"}),
    ("keywords:existence", {"keywords": ["river", "town"]}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}),
    ("length_constraints:number_sentences", {"num_sentences": 5, "relation": "at least"}),
]


def completion(rng: random.Random) -> str:
    """About 300 words, like a short answer."""
    return " ".join(rng.choices(WORDS, k=300))


def samples(count: int) -> dict[str, tuple[str, list[tuple]]]:
    """Arguments of `count` samples per workload."""
    rng = random.Random(0)
    fast, typical, follow = [], [], []
    for _ in range(count):
        a, b, text = rng.randint(1, 999), rng.randint(1, 999), completion(rng)
        fast.append((f"{text} \\boxed{{{a}}}", str(a), "none"))
        typical.append((f"{text} \\boxed{{\\frac{{{2 * a}}}{{{2 * b}}}}}", f"{a}/{b}", "none"))
        follow.append((text, rng.sample(CONSTRAINTS, 2), False))
    return {"math, fast": (MATH, fast), "math, typical": (MATH, typical), "ifeval": (IFEVAL, follow)}


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of `call`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(count: int, repeats: int = 3) -> list[dict]:
    """One row per workload: samples per second in line and by pool size, milliseconds isolation adds per sample."""
    warm_up_math()
    warm_up_ifeval()
    rows = []
    for name, (target, tasks) in samples(count).items():
        function = math_judge if target == MATH else ifeval_judge
        inline = seconds(lambda function=function, tasks=tasks: [function(*task) for task in tasks], repeats)
        row = {"workload": name, "inline": count / inline}
        for workers in (1, 2):
            with WorkerPool(workers) as pool:
                pool.run(target, tasks[: 4 * workers])  # start and import
                took = seconds(lambda pool=pool, target=target, tasks=tasks: pool.run(target, tasks), repeats)
            row[f"pool {workers}"] = count / took
            if workers == 1:
                row["overhead_ms"] = 1000 * (took - inline) / count
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    rows = measure(options.samples)
    print(f"{'workload':<16}{'in line':>12}{'pool of 1':>12}{'pool of 2':>12}{'overhead':>16}")
    print(f"{'':<16}{'samples/s':>12}{'samples/s':>12}{'samples/s':>12}{'ms per sample':>16}")
    for row in rows:
        rates = f"{row['inline']:>12.0f}{row['pool 1']:>12.0f}{row['pool 2']:>12.0f}"
        print(f"{row['workload']:<16}{rates}{row['overhead_ms']:>16.3f}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
