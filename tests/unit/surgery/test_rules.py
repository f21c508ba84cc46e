"""Balance, exclusion, top modules, other rules, smoothing, order and report, each against its definition."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from mgs_trl import MGSConfig
from mgs_trl.surgery import (
    Surgeon,
    SurgeryRule,
    method_names,
    partition,
    projection_order,
    resolve_conflicts,
    step_generator,
)
from tests.support.reference import pcgrad, relative_error
from tests.unit.surgery.test_exactness import SHAPES, draw


def flat(gradients, names=tuple(SHAPES)):
    return np.concatenate([np.asarray(gradients[n], np.float64).ravel() for n in names])


@pytest.mark.parametrize("kind", ["random", "mixed scales"])
def test_domain_balance_gives_equal_norms_and_keeps_the_size(kind):
    gradients = draw(torch.Generator().manual_seed(0), 3, kind)
    combined, _ = resolve_conflicts(gradients, method="none", balance="domain")
    units = [flat(g) / np.linalg.norm(flat(g)) for g in gradients.values()]
    plain = np.linalg.norm(sum(flat(g) for g in gradients.values()))
    expected = sum(units)
    expected *= min(plain / np.linalg.norm(expected), max(np.linalg.norm(flat(g)) for g in gradients.values()))
    if kind == "random":
        assert abs(np.linalg.norm(flat(combined)) / plain - 1) < 1e-6
    assert relative_error(flat(combined) / np.linalg.norm(flat(combined)), expected / np.linalg.norm(expected)) < 1e-6


def test_module_balance_gives_equal_norms_in_each_module():
    gradients = draw(torch.Generator().manual_seed(1), 2, "random")
    combined, _ = resolve_conflicts(gradients, "block", method="none", balance="module")
    for module in partition(list(SHAPES), "block"):
        a, b = (flat(gradients[d], module.parameters) for d in "ab")
        unit = a / np.linalg.norm(a) + b / np.linalg.norm(b)
        scale = min(np.linalg.norm(a + b) / np.linalg.norm(unit), max(np.linalg.norm(a), np.linalg.norm(b)))
        assert relative_error(flat(combined, module.parameters), unit * scale) < 1e-6


def test_balance_comes_before_surgery():
    gradients = draw(torch.Generator().manual_seed(2), 2, "random")
    gradients["b"] = {n: 5 * g - 3 * gradients["a"][n] for n, g in gradients["b"].items()}
    combined, _ = resolve_conflicts(gradients, "global", balance="domain")
    a, b = flat(gradients["a"]), flat(gradients["b"])
    unit = a / np.linalg.norm(a) + b / np.linalg.norm(b)
    scale = min(np.linalg.norm(a + b) / np.linalg.norm(unit), np.linalg.norm(b))
    balanced = [scale * a / np.linalg.norm(a), scale * b / np.linalg.norm(b)]
    assert relative_error(flat(combined), pcgrad(balanced, [[1], [0]])) < 1e-6


def test_balance_of_nearly_opposite_domains_does_not_blow_up():
    """F9."""
    g = torch.randn(100, generator=torch.Generator().manual_seed(0))
    h = -g + 1e-6 * torch.randn(100, generator=torch.Generator().manual_seed(1))
    combined, _ = resolve_conflicts({"a": {"w": 10 * g}, "b": {"w": h}}, method="none", balance="domain")
    assert combined["w"].norm() <= 10 * g.norm()
    zero, _ = resolve_conflicts({"a": {"w": g}, "b": {"w": torch.zeros(100)}}, balance="domain")
    assert relative_error(zero["w"], g) < 1e-6


def test_excluded_kinds_get_the_plain_sum():
    gradients = draw(torch.Generator().manual_seed(3), 3, "mixed scales")
    combined, report = resolve_conflicts(gradients, "block", exclude=["norm", "mlp"], seed=1)
    full, _ = resolve_conflicts(gradients, "block", seed=1)
    touched = 0
    for module, kind in zip(partition(list(SHAPES), "block"), report.kinds, strict=True):
        for name in module.parameters:
            if kind in ("norm", "mlp"):
                assert torch.equal(combined[name], sum(gradients[d][name] for d in "abc"))
            else:
                assert torch.equal(combined[name], full[name])
                touched += int(not torch.equal(full[name], sum(gradients[d][name] for d in "abc")))
    assert touched > 0


@pytest.mark.parametrize("top, count", [(3, 3), (0.5, 4), (1.0, 7), (100, 7)])
def test_top_modules_are_those_of_largest_norm(top, count):
    gradients = draw(torch.Generator().manual_seed(4), 2, "random")
    gradients["b"] = {n: g - 2 * gradients["a"][n] for n, g in gradients["b"].items()}  # conflict everywhere
    _, report = resolve_conflicts(gradients, "block", top_modules=top)
    operated = {
        m for m, w in zip(report.modules, report.weights, strict=True) if not torch.equal(w, torch.ones(2).double())
    }
    norms = {
        module.name: sum(np.linalg.norm(flat(gradients[d], module.parameters)) ** 2 for d in "ab")
        for module in partition(list(SHAPES), "block")
    }
    assert operated == set(sorted(norms, key=norms.get, reverse=True)[:count])


@pytest.mark.parametrize("top, count", [(1, 1), (2, 2), (0.5, 2)])
def test_top_modules_are_taken_from_those_that_are_not_excluded(top, count):
    """The embedding has by far the largest gradient; leaving it out must not leave surgery with less than asked."""
    gradients = draw(torch.Generator().manual_seed(4), 2, "random")
    gradients["b"] = {n: g - 2 * gradients["a"][n] for n, g in gradients["b"].items()}  # conflict everywhere
    modules = [module for module in partition(list(SHAPES), "block") if module.kind not in ("embedding", "norm")]
    for name in [
        n for module in partition(list(SHAPES), "block") if module.kind == "embedding" for n in module.parameters
    ]:
        gradients["a"][name] *= 1e3
    _, report = resolve_conflicts(gradients, "block", exclude=["embedding", "norm"], top_modules=top)
    ones = torch.ones(2).double()
    operated = {m for m, w in zip(report.modules, report.weights, strict=True) if not torch.equal(w, ones)}
    norms = {m.name: sum(np.linalg.norm(flat(gradients[d], m.parameters)) ** 2 for d in "ab") for m in modules}
    assert operated == set(sorted(norms, key=norms.get, reverse=True)[:count])


def test_observe_and_none_change_nothing():
    gradients = draw(torch.Generator().manual_seed(5), 3, "opposite")
    for method in ("observe", "none"):
        combined, report = resolve_conflicts(gradients, method=method)
        assert report.conflicts().any()
        assert report.removed_overall() == 0
        for name in SHAPES:
            assert torch.equal(combined[name], gradients["a"][name] + gradients["b"][name] + gradients["c"][name])


@pytest.mark.parametrize("method", ["upgrad", "mgda", "cagrad", "dualproj", "imtl_g", "aligned_mtl"])
def test_torchjd_rules_are_torchjds_times_the_number_of_domains(method):
    import torchjd.aggregation as aggregation

    aggregators = {
        "upgrad": aggregation.UPGrad(),
        "mgda": aggregation.MGDA(),
        "cagrad": aggregation.CAGrad(c=0.5),
        "dualproj": aggregation.DualProj(),
        "imtl_g": aggregation.IMTLG(),
        "aligned_mtl": aggregation.AlignedMTL(),
    }
    gradients = draw(torch.Generator().manual_seed(6), 3, "random")
    combined, _ = resolve_conflicts(gradients, "global", method=method)
    rows = torch.stack([torch.from_numpy(flat(gradients[d])) for d in "abc"])
    assert relative_error(flat(combined), 3 * aggregators[method](rows)) < 1e-5


RULES = [name for name in method_names() if name not in ("none", "observe")]


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e3])
@pytest.mark.parametrize("method", RULES)
def test_weights_do_not_depend_on_the_size_of_the_gradients(method, scale):
    """A small module, or small gradients, conflict as large ones do. torchjd's own threshold is 0.01."""
    gradients = draw(torch.Generator().manual_seed(6), 3, "random")
    gradients = {d: {n: g.double() for n, g in own.items()} for d, own in gradients.items()}
    gradients["b"] = {n: g - 3 * gradients["a"][n] for n, g in gradients["b"].items()}  # all rules see a conflict
    small = {d: {n: g * scale for n, g in own.items()} for d, own in gradients.items()}
    _, report = resolve_conflicts(gradients, "block", method=method)
    _, scaled = resolve_conflicts(small, "block", method=method)
    assert not torch.allclose(report.weights, torch.ones_like(report.weights))
    assert torch.allclose(report.weights, scaled.weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("lost", [0.0, torch.nan])
def test_a_domain_without_a_gradient_takes_no_part(method, lost):
    """All its groups may have equal rewards, or its gradient may not be finite: the others go on without it."""
    gradients = draw(torch.Generator().manual_seed(7), 3, "random")
    gradients["b"] = {n: torch.full_like(g, lost) for n, g in gradients["b"].items()}
    combined, _ = resolve_conflicts(gradients, "global", method=method, seed=2)
    others, _ = resolve_conflicts({d: gradients[d] for d in "ac"}, "global", method=method, seed=2)
    for name, value in others.items():
        assert relative_error(combined[name], value) <= 1e-5
    gradients["c"] = gradients["b"]
    combined, _ = resolve_conflicts(gradients, "global", method=method)
    for name, value in combined.items():
        assert relative_error(value, gradients["a"][name]) <= 1e-6


def test_a_rule_that_is_not_installed_is_refused_before_training(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchjd" else find(name))
    for start in (lambda: SurgeryRule("upgrad"), lambda: MGSConfig(output_dir="unused", surgery="upgrad")):
        with pytest.raises(ValueError, match=r"is 'upgrad', which needs torchjd, .* pip install 'mgs_trl\[rules\]'"):
            start()


def test_torchjd_rule_after_deepspeed_has_loaded_a_model():
    """In a process of its own: loading for ZeRO-3 leaves torch such that torchjd's classes cannot be defined."""
    code = """
import torch
from deepspeed.runtime.zero.partition_parameters import InsertPostInitMethodToModuleSubClasses
from mgs_trl.surgery import SurgeryRule

rule = SurgeryRule("mgda")
loading = InsertPostInitMethodToModuleSubClasses(mem_efficient_linear=False, dtype=torch.float32)
loading.tensor_overrides = ()
loading.patch_init_and_builtins()
loading.unpatch_init_and_builtins()
assert (rule.weights(torch.eye(2)[None], ["other"], 1) > 0).all()
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "DS_ACCELERATOR": "cpu"})


@pytest.mark.parametrize(
    "granularity, exclude, allowed",
    [
        ("global", ["other"], "no kinds to exclude"),
        ("layer", ["mlp"], r"'mlp', but it must be one of \['embedding', 'head'\]"),
        ("layer", ["head", "norm"], r"'norm', but it must be one of \['embedding', 'head'\]"),
    ],
)
def test_kinds_that_are_no_modules_cannot_be_excluded(granularity, exclude, allowed):
    """A layer and the whole model hold several kinds: leaving one out there would do nothing, without a word."""
    gradients = draw(torch.Generator().manual_seed(4), 2, "random")
    with pytest.raises(ValueError, match=f"^exclude .*{allowed}"):
        resolve_conflicts(gradients, granularity, exclude=exclude)
    with pytest.raises(ValueError, match=f"^surgery_exclude .*{allowed}"):
        MGSConfig(output_dir="unused", granularity=granularity, surgery_exclude=exclude)


def test_embedding_and_head_can_be_excluded_at_layer():
    gradients = draw(torch.Generator().manual_seed(4), 2, "opposite")
    _, report = resolve_conflicts(gradients, "layer", exclude=["embedding", "head"])
    plain = {m for m, w in zip(report.modules, report.weights, strict=True) if (w == 1).all()}
    assert plain == {"model.embed_tokens", "lm_head"}


def test_order_is_fixed_by_seed_and_step_and_differs_between_them():
    """Invariant 5 (F3): whatever the global generators do."""
    torch.manual_seed(1)
    first = projection_order(20, 4, step_generator(3, 8))
    torch.manual_seed(2)
    torch.rand(5)
    assert torch.equal(first, projection_order(20, 4, step_generator(3, 8)))
    assert not torch.equal(first, projection_order(20, 4, step_generator(3, 9)))
    assert not torch.equal(first, projection_order(20, 4, step_generator(4, 8)))
    for i in range(4):
        assert (first[:, i].sort(dim=-1).values == torch.tensor([j for j in range(4) if j != i])).all()


def test_orders_are_uniform():
    order = projection_order(6000, 4, step_generator(0, 0))[:, 0]
    counts = np.unique(order.numpy() @ [100, 10, 1], return_counts=True)[1]
    assert len(counts) == 6
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()


def test_domain_order_is_by_name_not_by_arrival():
    gradients = draw(torch.Generator().manual_seed(7), 3, "mixed scales")
    backwards = {d: gradients[d] for d in "cba"}
    one, report = resolve_conflicts(gradients, "block", seed=2)
    two, other = resolve_conflicts(backwards, "block", seed=2)
    assert report.domains == other.domains == ("a", "b", "c")
    assert all(torch.equal(one[n], two[n]) for n in SHAPES)


def test_smoothing_is_the_bias_corrected_exponential_mean_and_survives_a_checkpoint():
    modules = partition(list(SHAPES), "block")
    surgeon = Surgeon("ab", modules, SurgeryRule(), smoothing=0.9)
    restored = Surgeon("ab", modules, SurgeryRule(), smoothing=0.9)
    generator = torch.Generator().manual_seed(0)
    history = []
    for step in range(5):
        rows = torch.randn(len(modules), 2, 6, generator=generator, dtype=torch.float64)
        history.append(rows @ rows.mT)
        if step == 3:
            restored.load_state_dict(surgeon.state_dict())
        weights = [0.9 ** (step - k) for k in range(step + 1)]
        mean = sum(w * g for w, g in zip(weights, history, strict=True)) / sum(weights)
        report = surgeon.decide(history[-1], step)
        expected = SurgeryRule().weights(mean, surgeon.kinds, step)
        assert torch.allclose(report.weights, expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(report.gramian, history[-1])
        if step >= 3:
            assert torch.equal(report.weights, restored.decide(history[-1], step).weights)


def surgeon_after(granularity: str, smoothing: float, seed: int = 0) -> Surgeon:
    """With the history of one step."""
    surgeon = Surgeon("ab", partition(list(SHAPES), granularity), SurgeryRule(), smoothing)
    rows = torch.randn(len(surgeon.modules), 2, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    surgeon.decide(rows @ rows.mT, seed)
    return surgeon


@pytest.mark.parametrize("earlier_version", [False, True])
def test_changed_smoothing_is_that_of_the_resumed_run(earlier_version):
    """The history stays, and is forgotten at the new rate."""
    state = surgeon_after("block", 0.9).state_dict()
    state = {"beta": 0.9, "total": state["total"], "mass": state["mass"]} if earlier_version else state
    resumed = Surgeon("ab", partition(list(SHAPES), "block"), SurgeryRule(), smoothing=0.5)
    resumed.load_state_dict(state)
    eye = torch.eye(2, dtype=torch.float64).expand(len(resumed.modules), 2, 2)
    # Of the first Gramian the mean holds 0.1 in the state; of the second, 0.5, while the first fades to 0.05.
    expected = (0.05 * state["total"] / 0.1 + 0.5 * eye) / 0.55
    assert torch.allclose(resumed.smoother.update(eye), expected, rtol=1e-12)


@pytest.mark.parametrize("saved, resumed", [("global", "block"), ("block", "tensor"), ("tensor", "layer")])
def test_history_of_other_modules_is_refused(saved, resumed):
    state = surgeon_after(saved, 0.9).state_dict()
    other = surgeon_after(resumed, 0.9)
    words = rf"of {len(state['modules'])} modules \(.* this run has {len(other.modules)} modules"
    with pytest.raises(ValueError, match=words) as e:
        other.load_state_dict(state)
    assert "granularity" in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(ValueError, match="granularity"):  # saved by an earlier version, which named no modules
        other.load_state_dict({"beta": 0.9, "total": state["total"], "mass": state["mass"]})
    surgeon_after(resumed, 0.0).load_state_dict(state)  # nothing is smoothed, so nothing is taken over
    other.load_state_dict(surgeon_after(saved, 0.0).state_dict())


def test_history_of_as_many_other_modules_is_refused():
    surgeon = surgeon_after("block", 0.9)
    state = surgeon.state_dict()
    with pytest.raises(ValueError, match="granularity"):
        surgeon.load_state_dict({**state, "modules": [*state["modules"][:-1], "another"]})


def test_report_against_vectors():
    gradients = draw(torch.Generator().manual_seed(8), 3, "mixed scales")
    combined, report = resolve_conflicts(gradients, "block", seed=3)
    rows = [flat(gradients[d]) for d in "abc"]
    total = np.array([[a @ b for b in rows] for a in rows])
    assert np.allclose(report.total, total, rtol=1e-9)
    metrics = report.metrics()
    assert metrics["conflict/a~b/cosine"] == pytest.approx(total[0, 1] / np.sqrt(total[0, 0] * total[1, 1]))
    assert metrics["domain/c/grad_norm"] == pytest.approx(np.linalg.norm(rows[2]))
    plain = sum(rows)
    removed = np.linalg.norm(plain - flat(combined)) / np.linalg.norm(plain)
    assert metrics["surgery/removed"] == pytest.approx(removed, rel=1e-4)
    shares = []
    for m, module in enumerate(partition(list(SHAPES), "block")):
        a, b = flat(gradients["a"], module.parameters), flat(gradients["b"], module.parameters)
        shares.append(a @ b < 0)
        assert float(report.cosines()[m, 0, 1]) == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert metrics["conflict/a~b/share"] == pytest.approx(np.mean(shares))
    by_kind = report.by_kind()
    assert np.allclose(sum(g.numpy() for g in by_kind.values()), total)


@pytest.mark.parametrize("granularity", ["block", "global"])
def test_rescaled_is_the_plain_sum_with_the_norm_of_surgery(granularity):
    """A control: PCGrad's norm in each module, without its direction."""
    gradients = draw(torch.Generator().manual_seed(3), 3, "random")
    gradients["b"] = {n: g - gradients["a"][n] for n, g in gradients["b"].items()}
    rescaled, _ = resolve_conflicts(gradients, granularity, method="rescaled", seed=4)
    operated, _ = resolve_conflicts(gradients, granularity, method="pcgrad", seed=4)
    for module in partition(list(SHAPES), granularity):
        plain = sum(flat(g, module.parameters) for g in gradients.values())
        norm = np.linalg.norm(flat(operated, module.parameters))
        assert relative_error(flat(rescaled, module.parameters), plain * norm / np.linalg.norm(plain)) < 1e-6


@pytest.mark.parametrize(("method", "balance"), [("none", "none"), ("pcgrad", "none"), ("pcgrad", "domain")])
def test_factors_are_as_if_the_gradients_had_been_multiplied(method, balance):
    gradients = draw(torch.Generator().manual_seed(5), 3, "random")
    gradients["b"] = {n: g - gradients["a"][n] for n, g in gradients["b"].items()}
    factors = (3.0, 1.0, 0.25)
    modules = partition(list(SHAPES), "block")
    kinds = [module.kind for module in modules]

    def gramian(scales):
        rows = [[s * flat(g, m.parameters) for m in modules] for s, g in zip(scales, gradients.values(), strict=True)]
        parts = [np.stack([row[i] for row in rows]) for i in range(len(modules))]
        return torch.tensor(np.stack([part @ part.T for part in parts]))

    got = SurgeryRule(method, balance, seed=6, factors=factors).weights(gramian((1.0, 1.0, 1.0)), kinds, 1)
    expected = SurgeryRule(method, balance, seed=6).weights(gramian(factors), kinds, 1) * torch.tensor(factors)
    assert relative_error(got, expected) < 1e-9
