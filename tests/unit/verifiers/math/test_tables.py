"""Pairs of a gold answer and a boxed one, marked as a person would (independent of math-verify's own judgement)."""

import pytest

from mgs_trl.verifiers.math.judge import judge
from tests.unit.verifiers.math.tables import answers, equations, lists, notation, order, reading, typography, words

TABLES = [answers, equations, lists, notation, order, reading, typography, words]


@pytest.mark.parametrize(("gold", "answer"), [pair for table in TABLES for pair in table.EQUAL])
def test_equal(gold, answer):
    assert judge(f"so it is $\\boxed{{{answer}}}$.", gold) == 1.0


@pytest.mark.parametrize(("gold", "answer"), [pair for table in TABLES for pair in table.DIFFERENT])
def test_different(gold, answer):
    assert judge(f"so it is $\\boxed{{{answer}}}$.", gold) == 0.0
