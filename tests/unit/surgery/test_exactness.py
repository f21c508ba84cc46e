"""Invariant 3: `resolve_conflicts` against float64 brute force, and against torchjd for two domains."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgs_trl.surgery import chunks, partition, projection_order, resolve_conflicts, step_generator
from mgs_trl.surgery.gramian import combine_all
from tests.support.reference import modular_pcgrad, relative_error

SHAPES = {
    "model.embed_tokens.weight": (7, 5),
    "model.layers.0.self_attn.q_proj.weight": (4, 5),
    "model.layers.0.self_attn.q_proj.bias": (4,),
    "model.layers.0.mlp.up_proj.weight": (6, 5),
    "model.layers.0.input_layernorm.weight": (5,),
    "model.layers.1.self_attn.q_proj.weight": (4, 5),
    "model.layers.1.mlp.up_proj.weight": (6, 5),
    "lm_head.weight": (7, 5),
}
NAMES = ("a", "b", "c", "d", "e")
GRANULARITIES = ("global", "layer", "block", "tensor")


def draw(generator: torch.Generator, domains: int, kind: str) -> dict[str, dict[str, torch.Tensor]]:
    def normal(shape):
        return torch.randn(shape, generator=generator)

    first = {name: normal(shape) for name, shape in SHAPES.items()}
    gradients = {NAMES[0]: first}
    for d in range(1, domains):
        if kind == "random":
            gradients[NAMES[d]] = {name: normal(shape) for name, shape in SHAPES.items()}
        elif kind == "zero":
            gradients[NAMES[d]] = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
        elif kind == "parallel":
            gradients[NAMES[d]] = {name: g * (d + 0.5) for name, g in first.items()}
        elif kind == "opposite":
            gradients[NAMES[d]] = {name: -g * (d + 0.25) + 1e-3 * normal(g.shape) for name, g in first.items()}
        elif kind == "tiny":
            gradients[NAMES[d]] = {name: (normal(g.shape) - 0.5 * g) * 1e-20 for name, g in first.items()}
        elif kind == "mixed scales":
            gradients[NAMES[d]] = {name: (normal(g.shape) - g) * 10.0 ** (3 * d - 6) for name, g in first.items()}
    return gradients


def brute_force(gradients, granularity, seed, step):
    modules = [module.parameters for module in partition(list(SHAPES), granularity)]
    order = projection_order(len(modules), len(gradients), step_generator(seed, step)).numpy()
    domains = sorted(gradients)
    return modular_pcgrad([{n: g.numpy() for n, g in gradients[d].items()} for d in domains], modules, order)


@pytest.mark.parametrize("kind", ["random", "zero", "parallel", "opposite", "tiny", "mixed scales"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("domains", [2, 3, 5])
def test_against_float64_brute_force(domains, granularity, kind):
    """F9: zero, parallel, opposite and tiny gradients included."""
    for seed in range(5):
        gradients = draw(torch.Generator().manual_seed(seed), domains, kind)
        combined, _ = resolve_conflicts(gradients, granularity, seed=seed, step=3)
        expected = brute_force(gradients, granularity, seed, 3)
        assert combined.keys() == SHAPES.keys()
        for name, value in combined.items():
            assert value.shape == SHAPES[name]
            assert value.dtype == torch.float32
            assert relative_error(value, expected[name]) <= 1e-6


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 5),
    st.sampled_from(GRANULARITIES),
    st.integers(0, 10_000),
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=5, max_size=5),
)
def test_property_any_scales_and_signs(domains, granularity, seed, scales):
    gradients = draw(torch.Generator().manual_seed(seed), domains, "random")
    shared = draw(torch.Generator().manual_seed(seed + 1), 1, "random")["a"]
    for d, scale in zip(sorted(gradients), scales, strict=False):
        gradients[d] = {name: g + scale * shared[name] for name, g in gradients[d].items()}
    combined, _ = resolve_conflicts(gradients, granularity, seed=seed)
    expected = brute_force(gradients, granularity, seed, 0)
    size = math.sqrt(sum(float(g.square().sum()) for per in gradients.values() for g in per.values()))
    for name, value in combined.items():
        assert np.linalg.norm(value.double().numpy() - expected[name]) <= 1e-6 * size


def test_exactly_opposite_gradients_cancel():
    g = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    combined, report = resolve_conflicts({"a": {"w": g}, "b": {"w": -3.0 * g}})
    assert combined["w"].abs().max() <= 1e-6
    assert report.conflicts()[0, 0, 1]


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_one_domain_is_returned_bit_for_bit(granularity):
    gradients = draw(torch.Generator().manual_seed(1), 1, "random")
    combined, _ = resolve_conflicts(gradients, granularity)
    assert all(torch.equal(combined[n], g) for n, g in gradients["a"].items())


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_without_conflict_the_plain_sum_bit_for_bit(granularity):
    gradients = {d: {n: torch.rand(s) for n, s in SHAPES.items()} for d in "abc"}  # positive: no conflict
    combined, report = resolve_conflicts(gradients, granularity)
    assert not report.conflicts().any()
    for name, value in combined.items():
        assert torch.equal(value, gradients["a"][name] + gradients["b"][name] + gradients["c"][name])


def test_global_is_pcgrad_of_the_whole_gradient():
    gradients = draw(torch.Generator().manual_seed(5), 3, "mixed scales")
    combined, report = resolve_conflicts(gradients, "global", seed=9)
    assert len(report.modules) == 1
    whole = torch.cat([combined[n].flatten() for n in SHAPES])
    expected = brute_force(gradients, "global", 9, 0)
    assert relative_error(whole, np.concatenate([expected[n].ravel() for n in SHAPES])) <= 1e-6


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_two_domains_agree_with_torchjd_per_module(granularity):
    """For two domains the order cannot matter, so torchjd's PCGrad is an oracle."""
    from torchjd.aggregation import PCGrad

    for seed in range(10):
        gradients = draw(torch.Generator().manual_seed(seed), 2, "random")
        combined, _ = resolve_conflicts(gradients, granularity, seed=seed)
        for module in partition(list(SHAPES), granularity):
            rows = [torch.cat([gradients[d][n].double().flatten() for n in module.parameters]) for d in "ab"]
            expected = PCGrad()(torch.stack(rows))
            got = torch.cat([combined[n].flatten() for n in module.parameters])
            assert relative_error(got, expected) <= 1e-6


def test_gradients_longer_than_a_chunk(monkeypatch):
    """The two passes go chunk by chunk; a chunk that does not divide the length must change nothing."""
    gradients = {d: {"w": torch.randn(1003, generator=torch.Generator().manual_seed(i))} for i, d in enumerate("ab")}
    gradients["b"]["w"] -= gradients["a"]["w"]
    whole, _ = resolve_conflicts(gradients)
    monkeypatch.setattr(chunks, "CPU_CHUNK", 100)
    chunked, _ = resolve_conflicts(gradients)
    assert relative_error(chunked["w"], whole["w"]) <= 1e-7


def test_threads_change_no_bit(monkeypatch):
    gradients = {str(i): torch.randn(1003, generator=torch.Generator().manual_seed(i)) for i in range(3)}
    gradients["2"] -= gradients["0"]
    monkeypatch.setattr(chunks, "CPU_CHUNK", 64)
    monkeypatch.setattr(chunks, "WORTH_THREADS", 0)
    before, results = torch.get_num_threads(), {}
    try:
        for threads in (1, 2, 3):
            chunks._set_threads(threads)  # torch's own: vLLM may have replaced it for other tests of this process
            for method in ("pcgrad", "none"):
                combined, report = resolve_conflicts({d: {"w": g} for d, g in gradients.items()}, method=method)
                results[threads, method] = torch.cat([combined["w"].double(), report.gramian.flatten()])
            assert torch.get_num_threads() == threads
    finally:
        chunks._set_threads(before)
    for (_, method), result in results.items():
        assert torch.equal(result, results[1, method])


def test_surgery_leaves_no_threads_behind(monkeypatch):
    """Idle ones would slow every short operation of torch: with more threads than cores, OpenMP's wait asleep."""
    monkeypatch.setattr(chunks, "CPU_CHUNK", 64)
    monkeypatch.setattr(chunks, "WORTH_THREADS", 0)
    started = []
    initial = chunks.threading.Thread.start
    monkeypatch.setattr(chunks.threading.Thread, "start", lambda self: (started.append(self), initial(self)))
    before = torch.get_num_threads()
    try:
        chunks._set_threads(2)
        resolve_conflicts({str(i): {"w": torch.ones(1003)} for i in range(3)})
    finally:
        chunks._set_threads(before)
    assert len(started) == 4  # two for each pass
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.parametrize(
    "scarce, told",
    [
        ("resource.setrlimit(resource.RLIMIT_AS, 2 * (memory() + (60 << 20),))", "RuntimeError: can't start"),
        ("chunks._CORES = {4000}", "OSError: "),
    ],
    ids=["memory", "cores"],
)
def test_a_thread_that_cannot_be_had_is_an_error_and_no_wait(scarce, told):
    """The memory, or the number of threads, of a container may be used up, and its cores may be other ones by now."""
    code = f"""
import re, resource, sys, torch
from mgs_trl.surgery import chunks, resolve_conflicts

def memory():
    return 1024 * int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])

chunks.CPU_CHUNK, chunks.WORTH_THREADS = 1000, 0
torch.set_num_threads(64)
gradients = {{domain: {{"w": torch.ones(100_000)}} for domain in "ab"}}
{scarce}
try:
    resolve_conflicts(gradients)
finally:
    print("threads:", torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and told in done.stderr, done.stderr
    assert done.stdout.strip() == "threads: 64"


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.5, -2.0]])
def test_parameters_on_several_devices_are_combined_each_on_its_own(weights):
    """A model that is split over devices; `meta` stands for a second one, as tensors cannot be mixed with it either."""
    rows = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(3))
    devices = ["cpu", "meta", "cpu", "meta"]
    out = [torch.empty(5, device=device) for device in devices]
    vectors = [list(row.to(device)) for row, device in zip(rows, devices, strict=True)]
    combine_all(out, vectors, [weights] * 4)
    for i in (0, 2):
        assert relative_error(out[i], np.array(weights) @ rows[i].double().numpy()) < 1e-7


def test_bfloat16_gradients_are_decided_in_float64():
    gradients = draw(torch.Generator().manual_seed(2), 3, "random")
    low = {d: {n: g.bfloat16() for n, g in per.items()} for d, per in gradients.items()}
    combined, _ = resolve_conflicts(low, "block", seed=1)
    exact = brute_force({d: {n: g.float() for n, g in per.items()} for d, per in low.items()}, "block", 1, 0)
    for name, value in combined.items():
        assert value.dtype == torch.bfloat16
        assert relative_error(value.float(), exact[name]) <= 2**-8


@pytest.mark.parametrize("weights", [[1.0] * 4, [1.0, 0.5, 2.0, 1.0]], ids=str)
def test_sum_of_bfloat16_gradients_is_rounded_once(weights):
    rows = torch.randn(4, 1000, generator=torch.Generator().manual_seed(4)).bfloat16()
    exact = torch.tensor(weights, dtype=torch.float64) @ rows.double()
    out = rows[-1].clone()
    combine_all([out], [[*rows[:-1].float(), out]], [weights])
    assert torch.equal(out, exact.bfloat16())


def test_missing_and_none_gradients_count_as_zero():
    """F7: a parameter that a domain does not reach."""
    g, h = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.5])
    combined, report = resolve_conflicts({"a": {"w": g, "v": g}, "b": {"w": h, "v": None}})
    assert torch.equal(combined["v"], g)
    assert report.gramian[report.modules.index("v"), 1].abs().sum() == 0
    only_a, _ = resolve_conflicts({"a": {"w": g, "v": g}, "b": {"w": h}})
    assert torch.equal(only_a["v"], g)


def test_a_non_finite_domain_is_left_out_everywhere_and_named():
    """F9: it must not spread."""
    gradients = draw(torch.Generator().manual_seed(3), 3, "random")
    gradients["b"]["lm_head.weight"][0, 0] = torch.inf
    gradients["b"]["model.embed_tokens.weight"][0, 0] = torch.nan
    combined, report = resolve_conflicts(gradients, "block", seed=4)
    assert report.dropped == ("b",)
    assert all(value.isfinite().all() for value in combined.values())
    # What is left is PCGrad of the two others.
    others, _ = resolve_conflicts({d: gradients[d] for d in "ac"}, "block", seed=4)
    for name, value in combined.items():
        assert relative_error(value, others[name]) <= 1e-6


def test_observing_names_a_non_finite_domain_and_leaves_the_plain_sum():
    gradients = {"a": {"w": torch.tensor([torch.nan, 1.0])}, "b": {"w": torch.tensor([1.0, -2.0])}}
    combined, report = resolve_conflicts(gradients, method="observe")
    assert report.dropped == ("a",) and report.weights.tolist() == [[1.0, 1.0]]
    assert combined["w"][0].isnan() and combined["w"][1] == -1.0


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"gradients": {}}, "at least one domain"),
        ({"gradients": {"a": {"w": torch.zeros(2)}, "b": {"w": torch.zeros(3)}}}, "shape"),
        ({"gradients": {"a": {}, "b": {"w": None}}}, "no gradient of any parameter"),
        ({"gradients": {"a": {}}, "method": "upgrad"}, "no gradient of any parameter"),
        ({"gradients": {"a": {"w": torch.zeros(2)}}, "method": "pcgard"}, "pcgard"),
        ({"gradients": {"a": {"w": torch.zeros(2)}}, "granularity": "head"}, "granularity"),
        ({"gradients": {"a": {"w": torch.zeros(2)}}, "balance": "all"}, "balance"),
        ({"gradients": {"a": {"w": torch.zeros(2)}}, "exclude": ["norms"]}, "norms"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        resolve_conflicts(**arguments)
