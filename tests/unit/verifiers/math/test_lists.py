# ruff: noqa: E501  tables
"""Several values, with and without names, and infinite ones, marked as a person would."""

import os
import subprocess
import sys

import pytest

from mgs_trl.verifiers.math.judge import judge

EQUAL = [
    # values with names
    ("x=1,y=2", "(1,2)"), ("x=1,y=2", "y=2,x=1"), ("x=1,y=2", r"x=1\text{ and }y=2"), ("x=1,y=2", "(x,y)=(1,2)"), ("x=1,y=2", "1,2"), ("y=2,x=1", "(1,2)"),
    ("(1,2)", "x=1,y=2"), ("(1,2)", "y=2, x=1"), ("(1,2)", "(x,y)=(1,2)"), (r"\left(\frac12,3\right)", "y=3, x=0.5"), ("(x,y)=(1,2)", "y=2,x=1"), ("(x,y)=(1,2)", r"\left(x,y\right)=\left(1,2\right)"),
    ("x=1, y=2, z=3", "(1,2,3)"), ("(3,1)", "a=3,b=1"), ("w=3, h=5", "(3,5)"), ("a=2, b=-1", "2,-1"), (r"\alpha=1,\beta=2", "(1,2)"), ("x=1;y=2", "(1,2)"), ("x=1,y=2", "x=1, y = 4/2"),
    # of one unknown
    (r"x=1\text{ or }x=-2", "x_{1}=1, x_{2}=-2"), (r"x=1\text{ or }x=-2", "x_1=-2,x_2=1"), ("x_{1}=1, x_{2}=-2", r"x=-2\text{ or }x=1"), ("x_1=1,x_2=-2", "-2,1"), ("1,-2", "x_1=-2, x_2=1"),
    (r"\{1,-2\}", "x_1=1, x_2=-2"), ("x=3,x=4", "4,3"), ("x=3,x=4", "x=4,x=3"), ("x_1=1,x_2=2", "x_{2}=2,x_{1}=1"), ("x_1=1,x_2=2", "(1,2)"),
    # both signs
    (r"\frac{-1+\sqrt5}{2},\frac{-1-\sqrt5}{2}", r"\frac{-1\pm\sqrt5}{2}"), (r"\frac{-1\pm\sqrt5}{2}", r"x=\frac{-1+\sqrt5}{2}\text{ or }x=\frac{-1-\sqrt5}{2}"), (r"\frac{-1\pm\sqrt5}{2}", r"x = \frac{\pm\sqrt{5}-1}{2}"),
    (r"\frac{-1\pm\sqrt5}{2}", r"-\frac12\pm\frac{\sqrt5}{2}"), (r"\left\{\frac{1\pm\sqrt5}{2}\right\}", r"\frac{1-\sqrt5}{2},\frac{1+\sqrt5}{2}"), (r"\pm 2", "2,-2"), ("-2,0,2", r"0,\pm 2"), (r"1\pm 2i", "1-2i,1+2i"),
    (r"(1,0),(-1,0)", r"(\pm 1,0)"), (r"(1,-2),(-1,2)", r"(\pm1,\mp2)"), (r"y=\frac12x,y=-\frac12x", r"y=\pm\frac12x"), (r"x=\pm1,y=\pm2", r"x=\pm 1, y=\pm 2"), (r"3 \pm 0.1", r"3\pm .1"),
    # ratios, repeated values
    ("1:2:3", "1 : 2 : 3"), (r"1:\sqrt{3}:2", r"1:\sqrt3:2"), ("1:2:3", "x:y:z=1:2:3"), ("x:y:z=1:2:3", "1:2:3"), ("4:3", "8:6"), ("1,1,2", "1,2,1"), ("5", "x=5, x=5"), ("(5,5)", "(5,5)"), ("5", r"\{5\}"),
    # equations beside each other
    ("1,5", r"x=1 \lor x=5"), ("1,5", r"x=1 \vee x=5"), ("1,5", r"x=1 \quad x=5"), ("1,5", r"x=1\quad\text{or}\quad x=5"), ("1,5", r"x=1 \\ x=5"), ("(1,5)", r"x=1 \quad y=5"), (r"x=1, y=5", r"x=1 \land y=5"), ("5", r"\quad x=5"), ("5", r"\quad\quad x=5"), ("1,5", r"x_1=1 \qquad x_2=5"),
    # infinity
    (r"\infty", r"+\infty"), (r"\infty", r"2^{\infty}"), ("0", r"e^{-\infty}"), (r"(-\infty,\infty)", r"\mathbb{R}"), (r"(3,\infty)", "x>3"), (r"(\infty,1)", r"(\infty,\frac22)"),
]  # fmt: skip
DIFFERENT = [
    ("x=1,y=2", "(2,1)"), ("x=1,y=2", "2,1"), ("x=1,y=2", "y=1,x=2"), ("x=1,y=2", r"x=2\text{ and }y=1"), ("x=1,y=2", "(x,y)=(2,1)"), ("y=2,x=1", "(2,1)"), ("(1,2)", "y=1,x=2"), ("(1,2)", "x=2,y=1"), ("1,2", "x=2,y=1"),
    ("(x,y)=(1,2)", "x=2,y=1"), ("(x,y)=(1,2)", "(2,1)"), ("x=1, y=2, z=3", "(3,2,1)"), ("x=1, y=2, z=3", "(1,3,2)"), ("x=1, y=2, z=3", "(1,2)"), ("(3,1)", "a=1,b=3"), ("w=3, h=5", "(5,3)"), ("a=2,b=-1", "(-1,2)"), ("x=1,y=2", "a=1,b=2"),
    ("x=1,y=2", "x=1"), ("x=1,y=2", "3"),
    ("x_1=1,x_2=2", "(2,1)"), ("x_1=1,x_2=2", "x_1=2,x_2=1"), ("x_1=1,x_2=-2", "1,2"), ("1,-2", "x_1=1"), ("1,-2", "x_1=1,x_2=2"), (r"x=1\text{ or }x=-2", "x_1=1,x_2=2"), (r"x=1\text{ or }x=-2", "y_1=1,y_2=-2"),
    (r"\frac{-1+\sqrt5}{2}", r"\frac{-1\pm\sqrt5}{2}"), (r"\frac{-1\pm\sqrt5}{2}", r"\frac{-1+\sqrt5}{2}"), (r"\frac{-1\pm\sqrt5}{2}", r"\frac{1\pm\sqrt5}{2}"), ("2", r"\pm 2"), (r"\pm 2", "2"), (r"\pm 2", "2,2"), (r"(\pm1,\mp2)", "(1,2),(-1,-2)"),
    (r"x=\pm1,y=\pm2", "x=1,y=2"), (r"0,\pm 2", "0,2"),
    ("1:2:3", "1:3:2"), ("1:2:3", "1/6"), (r"1:\sqrt{3}:2", r"1:2:\sqrt{3}"), ("1:2:3", "x:y:z=1:3:2"), ("a:b:c", "a:c:b"), ("5", "5,5"), ("5", "5;5"), ("5", "5,5,5"), ("1,1,2", "1,2"), ("1,2", "1,1,2"),
    ("5", r"x=1 \lor x=5"), ("5", r"x=1 \vee x=5"), ("1", r"x=1 \lor x=5"), ("5", r"x=1 \quad x=5"), ("5", r"x=1 \quad y=5"), ("5", r"x=1 \\ y=5"), ("5", r"x=1 \land y=5"), ("5", r"x=1 \wedge y=5"), ("5", r"x_1=1 \quad x_2=5"),
]  # fmt: skip
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


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal(gold, answer):
    assert judge(f"so it is \\boxed{{{answer}}}", gold) == 1.0


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different(gold, answer):
    assert judge(f"so it is \\boxed{{{answer}}}", gold) == 0.0


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_infinite_is_not_finite_in_whichever_order_sets_come(seed):
    program = f"""
from mgs_trl.verifiers.math.judge import judge
print([pair for pair in {INFINITE!r} if judge("\\\\boxed{{" + pair[1] + "}}", pair[0])])
"""
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
