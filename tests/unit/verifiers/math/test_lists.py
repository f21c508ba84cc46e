# ruff: noqa: E501  tables
"""Several values, with and without names, and infinite ones, marked as a person would."""

import os
import subprocess
import sys

import pytest

INFINITE = [
    (gold, answer)
    for gold in ("0.5", "2", "e^2", r"\pi", r"\sqrt{2}", "x", "-5")
    for answer in (r"2^{\infty}", r"\frac{\infty}{2}", r"\infty", r"\frac{\infty}{\infty}", r"\frac{1}{0}", r"x\infty", r"\infty-\infty")
]  # fmt: skip
INFINITE += [
    (r"\frac{\infty}{2}", "0.5"),
    (r"\infty", "5"),
    (r"\infty", r"-\infty"),
    ("1,2", r"1,2^{\infty}"),
    ("x=5", r"x=5^{\infty}"),
]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_infinite_is_not_finite_in_whichever_order_sets_come(seed):
    program = f"""
from mgs_trl.verifiers.math.judge import judge
print([pair for pair in {INFINITE!r} if judge("\\\\boxed{{" + pair[1] + "}}", pair[0])])
"""
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
