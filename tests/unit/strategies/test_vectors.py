"""What becomes of each tensor in a merge, against the papers' definitions in float64."""

import itertools
import math
import warnings
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgs_trl.strategies.merge import merge_experts
from mgs_trl.strategies.vectors import METHODS, check_merge, merge_tensors
from tests.unit.strategies.conftest import float64_of, tensors_of

# The definitions, written again.


def trimmed(vector: numpy.ndarray, density: float) -> numpy.ndarray:
    kept = numpy.argsort(-numpy.abs(vector), axis=None)[: math.floor(density * vector.size)]
    result = numpy.zeros(vector.size)
    result[kept] = vector.reshape(-1)[kept]
    return result.reshape(vector.shape)


def elected_mean(vectors: list[numpy.ndarray], weights: list[float]) -> numpy.ndarray:
    """Element by element: the mean over those of the elected sign."""
    weighted = numpy.stack([w * v for w, v in zip(weights, vectors, strict=True)]).reshape(len(vectors), -1)
    result = numpy.zeros(weighted.shape[1])
    for place, column in enumerate(weighted.T):
        positive = column.sum() >= 0
        agreeing = [value for value in column if value != 0 and (value > 0) == positive]
        result[place] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return result.reshape(vectors[0].shape)


def by_definition(method, experts, base, weights, density) -> Any:
    vectors = [expert - base for expert in experts]
    if method == "linear":
        return sum(w * e for w, e in zip(weights, experts, strict=True)) / sum(weights)
    if method == "task_arithmetic":
        return base + sum(w * v for w, v in zip(weights, vectors, strict=True))
    assert method == "ties"
    return base + elected_mean([trimmed(vector, density) for vector in vectors], weights)


def outcomes(method, vectors, weights, density):
    """All that DARE could make of a tensor: one array for every choice of who keeps an element."""
    for keeps in itertools.product([0, 1], repeat=len(vectors)):
        dropped = [keep * vector / density for keep, vector in zip(keeps, vectors, strict=True)]
        if method == "dare_linear":
            yield sum(w * v for w, v in zip(weights, dropped, strict=True))
        else:
            yield elected_mean(dropped, weights)


@pytest.mark.parametrize(
    "method, weights, density, filled",
    [
        ("linear", None, None, ([1, 1], None)),
        ("linear", {"chat": 3, "math": 1.0}, None, ([1, 3], None)),
        ("task_arithmetic", None, None, ([0.5, 0.5], None)),
        ("task_arithmetic", {"math": 0.7, "chat": -0.4}, None, ([0.7, -0.4], None)),
        ("ties", None, None, ([1, 1], 0.2)),
        ("ties", None, 1.0, ([1, 1], 1.0)),
        ("ties", {"math": 0.3, "chat": 1.5}, 0.5, ([0.3, 1.5], 0.5)),
        ("ties", {"math": 1, "chat": -0.6}, 0.75, ([1, -0.6], 0.75)),
    ],
)
def test_a_merge_is_what_the_paper_defines(places, experts, tmp_path, method, weights, density, filled):
    merge_experts(places["base"], experts, tmp_path / "out", method, weights, density)
    base, found = float64_of(places["base"]), float64_of(tmp_path / "out")
    read = {name: float64_of(directory) for name, directory in experts.items()}
    assert set(found) == set(base)
    for name, tensor in found.items():
        wanted = by_definition(method, [read[d][name] for d in experts], base[name], *filled)
        numpy.testing.assert_allclose(tensor, wanted, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize(
    "weights, density, filled",
    [
        (None, None, (None, 0.5)),
        ({"math": 1, "chat": -0.6}, 0.3, ([1, -0.6], 0.3)),
        ({"math": 0.3, "chat": 2}, 0.8, ([0.3, 2], 0.8)),
    ],
)
def test_dare_is_one_of_its_outcomes_each_as_often_as_defined(
    places, experts, tmp_path, method, weights, density, filled
):
    merge_experts(places["base"], experts, tmp_path / "out", method, weights, density, seed=3)
    used, kept = filled
    used = used or ([0.5, 0.5] if method == "dare_linear" else [1, 1])
    base, found = float64_of(places["base"]), float64_of(tmp_path / "out")
    read = [float64_of(directory) for directory in experts.values()]
    total, zeros = 0, 0
    for name, tensor in found.items():
        vectors = [expert[name] - base[name] for expert in read]
        errors = numpy.stack([abs(tensor - base[name] - o) for o in outcomes(method, vectors, used, kept)])
        assert errors.min(axis=0).max() < 2e-6, name
        total, zeros = total + tensor.size, zeros + int((errors[0] < 1e-7).sum())
    # Both experts drop an element with probability (1 - density)**2: binomial, five standard deviations.
    share = (1 - kept) ** 2
    assert abs(zeros / total - share) < 5 * math.sqrt(share * (1 - share) / total)


def test_dare_at_density_1_drops_nothing_and_says_nothing(places, experts, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merge_experts(places["base"], experts, tmp_path / "dare", "dare_linear", density=1.0)
        merge_experts(places["base"], experts, tmp_path / "ties", "ties", density=1)
        merge_experts(places["base"], experts, tmp_path / "dare_ties", "dare_ties", density=1)
    merge_experts(places["base"], experts, tmp_path / "plain", "task_arithmetic")
    for one, other in (("dare", "plain"), ("ties", "dare_ties")):
        found, wanted = tensors_of(tmp_path / one), tensors_of(tmp_path / other)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def numbers(low, high):
    return st.integers(round(low * 1000), round(high * 1000)).map(lambda value: value / 1000)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 4), numbers(0.1, 1), st.sampled_from(["linear", "task_arithmetic", "ties"]))
def test_tensors_of_any_number_of_experts(data, count, density, method):
    # Distinct magnitudes, so that which ones are the largest is no matter of ties; sums of few decimals that are not
    # nearly 0, so that float32 and float64 elect the same sign.
    weights = data.draw(st.lists(numbers(0.1, 2), min_size=count, max_size=count))
    generator = numpy.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    base, *experts = (generator.standard_normal((3, 5)).astype("float32") for _ in range(count + 1))
    found = merge_tensors(
        [torch.tensor(e) for e in experts], torch.tensor(base), method, weights, None if method != "ties" else density
    )
    vectors = [expert.astype("float64") - base for expert in experts]
    wanted = by_definition(method, [base + vector for vector in vectors], base.astype("float64"), weights, density)
    sums = abs(sum(w * trimmed(v, density) for w, v in zip(weights, vectors, strict=True)))
    sure = (sums > 1e-5) | (sums == 0) | (method != "ties")
    numpy.testing.assert_allclose(found.numpy()[sure], wanted[sure], rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(numbers(-3, 3), min_size=1, max_size=8), st.lists(numbers(0.1, 5), min_size=1, max_size=4))
def test_identical_experts_merge_into_themselves(values, weights):
    expert = torch.tensor(values)
    torch.testing.assert_close(merge_tensors([expert] * len(weights), None, "linear", weights), expert)


@settings(max_examples=25, deadline=None)
@given(st.lists(numbers(-3, 3), min_size=4, max_size=4), st.lists(numbers(-3, 3), min_size=4, max_size=4))
def test_one_expert_of_weight_1_is_itself(base, expert):
    found = merge_tensors([torch.tensor(expert)], torch.tensor(base), "task_arithmetic", [1])
    torch.testing.assert_close(found, torch.tensor(expert))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(numbers(0.1, 3), min_size=4, max_size=4), min_size=1, max_size=4))
def test_ties_of_experts_that_agree_is_their_mean(experts):
    found = merge_tensors([torch.tensor(e) for e in experts], torch.zeros(4), "ties", [1] * len(experts), 1.0)
    torch.testing.assert_close(found, torch.tensor(experts).mean(dim=0))


def test_weights_count_in_the_election_and_the_number_of_experts_divides():
    """By hand; PEFT's own `ties` would elect the sign of 3 - 1 - 1, and give 0.15."""
    experts = [torch.tensor([3.0]), torch.tensor([-1.0]), torch.tensor([-1.0])]
    found = merge_tensors(experts, torch.zeros(1), "ties", [0.1, 1, 2], 1.0)
    assert found.item() == pytest.approx(-1.5)


@pytest.mark.parametrize("density", [0.25, 0.8])
def test_dare_keeps_the_expectation(density):
    vector, count = torch.tensor([1.0, -2.0, 0.5, 3.0]), 1000
    found = torch.stack([merge_tensors([vector], torch.zeros(4), "dare_linear", [1], density, s) for s in range(count)])
    # vector * Bernoulli(density) / density has this standard deviation; five of them for the mean of `count`.
    deviation = vector.abs() * math.sqrt((1 - density) / density)
    assert ((found.mean(dim=0) - vector).abs() < 5 * deviation / math.sqrt(count)).all()
    torch.testing.assert_close(found.std(dim=0), deviation, rtol=0.15, atol=0)


def test_a_seed_fixes_the_masks_and_experts_have_different_ones(places, experts, tmp_path):
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        merge_experts(places["base"], experts, tmp_path / name, "dare_linear", density=0.5, seed=seed)
    one, again, two = (tensors_of(tmp_path / name) for name in ("one", "again", "two"))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], two[name]) for name in one)
    vector = torch.ones(1000)
    pair = merge_tensors([vector, vector * 10], torch.zeros(1000), "dare_linear", [1, 1], 0.5, 5)
    # With one mask for both there would be 0 and 22 only.
    assert sorted(pair.unique().tolist()) == [0, 2, 20, 22]
    layers = [one[f"model.layers.{n}.self_attn.q_proj.weight"] for n in (0, 1)]
    base = tensors_of(places["base"])
    masks = [layer == base[f"model.layers.{n}.self_attn.q_proj.weight"] for n, layer in enumerate(layers)]
    assert not torch.equal(*masks)


@pytest.mark.parametrize(
    "method, weights, density, message",
    [
        ("tie", None, None, "method is 'tie', but it must be one of linear, task_arithmetic, ties, dare_linear, "
         "dare_ties. Did you mean 'ties'?"),
        ("ties", {"mth": 1}, None, "weights names 'mth', but there are only experts of math, chat. "
         "Did you mean 'math'?"),
        ("ties", {"math": 1}, None, "weights has none for 'chat', but each expert needs one."),
        ("ties", [1, 2], None, "weights is [1, 2], but it must map each domain to a number."),
        ("ties", {"math": math.nan, "chat": 1}, None, "weights.math is nan, but it must be a finite number."),
        ("ties", {"math": 1, "chat": True}, None, "weights.chat is True, but it must be a finite number."),
        ("ties", {"math": 1, "chat": "1"}, None, "weights.chat is '1', but it must be a finite number."),
        ("linear", {"math": 1, "chat": -1}, None, "weights is {'math': 1, 'chat': -1}, but for linear their sum "
         "must not be 0."),
        ("ties", None, 0, "density is 0, but it must be a number above 0 and at most 1."),
        ("ties", None, 1.1, "density is 1.1, but it must be a number above 0 and at most 1."),
        ("ties", None, math.nan, "density is nan, but it must be a number above 0 and at most 1."),
        ("ties", None, "0.5", "density is '0.5', but it must be a number above 0 and at most 1."),
        ("linear", None, 0.5, "density is 0.5, but linear has none; only ties, dare_linear, dare_ties have one."),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(places, experts, tmp_path, method, weights, density, message):
    with pytest.raises(ValueError) as caught:
        check_merge(method, weights, density, ["math", "chat"])
    assert str(caught.value) == f"strategy.merge.{message}"
    with pytest.raises(ValueError) as caught:
        merge_experts(places["base"], experts, tmp_path / "out", method, weights, density)
    assert str(caught.value) == f"strategy.merge.{message}" and not (tmp_path / "out").exists()


def test_options_that_fit():
    for method in METHODS:
        check_merge(method, None, None, ["math", "chat"])
        check_merge(method, {"math": 0.5, "chat": 0}, None, ["math", "chat"])
    check_merge("task_arithmetic", {"math": 1, "chat": -1}, None, ["math", "chat"])
    check_merge("ties", None, 1, iter(["math"]))
    with pytest.raises(ValueError, match=r"^strategy.merge.experts is empty, but a merge needs at least one expert.$"):
        check_merge("ties", None, 1, [])
