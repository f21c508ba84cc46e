"""Telling conflict from noise, against SciPy and simulations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mgs_trl.report.conflicts import summarise
from mgs_trl.report.statistics import RunningMean, chance_beyond
from mgs_trl.report.verdicts import conflict_sentences, verdicts

from .logs import conflict_lines, gramians, module_names


@pytest.mark.parametrize("steps", [2, 3, 5, 10, 40, 1000, 100_000])
@pytest.mark.parametrize("errors", [0.5, 2.0, 4.0])
def test_chance_is_students_tail(steps, errors):
    assert chance_beyond(errors, steps) == pytest.approx(stats.t.sf(errors, steps - 1), rel=2e-3, abs=1e-7)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=2, max_size=40), st.floats(-1e6, 1e6))
def test_running_mean_does_not_depend_on_the_origin(values, origin):
    running = RunningMean((1,))
    for value in values:
        running.add(np.array([value + origin]), np.array([True]))
    scale = np.abs(values).max() + abs(origin) + 1
    assert running.mean()[0] == pytest.approx(np.mean(values) + origin, abs=1e-9 * scale)


def test_standard_error_widens_with_correlation_in_time():
    """An AR(1) series with coefficient 0.8: the error of its mean is three times that of independent steps."""
    generator = np.random.default_rng(0)
    means, errors = [], []
    running = RunningMean((200,))
    values = np.zeros((400, 200))
    noise = generator.normal(size=values.shape)
    for i in range(400):
        values[i] = (0.8 * values[i - 1] if i else 0) + noise[i]
        running.add(values[i], np.ones(200, dtype=bool))
    means, errors = running.mean(), running.standard_error()
    assert 0.8 < np.sqrt((errors**2).mean()) / means.std() < 1.2
    assert (np.abs(means) > 2 * errors).mean() < 0.1


def sentences(conflict, seed, layers=20):
    names, _ = module_names(layers)
    gramian = gramians(80, len(names), 2, seed, conflict)
    lines = conflict_lines(gramian, np.ones((80, len(names), 2)), ["a", "b"], layers)
    conflicts = summarise(lines, len(lines))
    assert conflicts is not None
    table = verdicts(conflicts)
    found = sum(v.word == "conflict" for name in conflicts.modules for v in table[name])
    return found, len(names), "\n".join(conflict_sentences(conflicts, table))


def test_noise_is_called_noise_and_conflict_conflict():
    found, modules, text = sentences(conflict=0.0, seed=3)
    assert found <= 6 and "no conflict is told from noise" in text  # 2.4 % of 62 by chance
    assert "no more than chance explains" in text
    found, modules, text = sentences(conflict=0.5, seed=3)
    assert found > 0.8 * modules and "they conflict over the whole model" in text
    assert "more than chance alone explains" in text


def test_a_domain_keeps_its_name_in_sentences_whatever_is_in_it():
    names, _ = module_names(1)
    lines = conflict_lines(gramians(8, len(names), 2), np.ones((8, len(names), 2)), ["chat~web", "math"], 1)
    conflicts = summarise(lines, 8)
    assert conflicts is not None
    assert conflict_sentences(conflicts, verdicts(conflicts))[0].startswith("chat~web and math: ")


def test_too_few_steps_give_no_verdict():
    names, _ = module_names(1)
    lines = conflict_lines(gramians(3, len(names), 2, 0, 5.0), np.ones((3, len(names), 2)), ["a", "b"], 1)
    conflicts = summarise(lines, 3)
    assert conflicts is not None
    assert {v.word for row in verdicts(conflicts).values() for v in row} == {"too few steps"}


def test_plain_sum_has_no_weights_to_explain():
    names, _ = module_names(1)
    conflicts = summarise(conflict_lines(gramians(4, len(names), 2), np.ones((4, len(names), 2)), ["a", "b"], 1), 4)
    assert conflicts is not None
    assert not conflicts.weights.changed
    assert conflicts.series["removed"] == [0.0] * 4


def test_constant_weights_are_explained_in_full():
    names, _ = module_names(1)
    weights = np.broadcast_to([1.3, 0.9], (6, len(names), 2))
    conflicts = summarise(conflict_lines(gramians(6, len(names), 2), weights, ["a", "b"], 1), 6)
    assert conflicts is not None
    np.testing.assert_allclose(conflicts.weights.constant(), [1.3, 0.9])
    assert conflicts.weights.explained(np.ones((1, len(names)))) == pytest.approx(1.0)
    assert conflicts.weights.explained_update() == pytest.approx(1.0)
