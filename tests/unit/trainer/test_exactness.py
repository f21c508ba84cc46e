"""Invariant 3 through the trainer: what the optimizer sees against float64 brute force on the domain gradients."""

import pytest
import torch

from mgs_trl.surgery import partition_model, projection_order, step_generator
from tests.support.reference import modular_pcgrad, relative_error


def brute_force(run, granularity: str, step: int, seed: int) -> dict:
    modules = partition_model(run.trainer.model, granularity)
    recorded = run.domain_gradients[step]
    per_domain = [{n: g.numpy() for n, g in recorded[d].items()} for d in sorted(recorded)]
    order = projection_order(len(modules), len(per_domain), step_generator(seed, step + 1)).numpy()
    return modular_pcgrad(per_domain, [m.parameters for m in modules], order)


@pytest.mark.parametrize("granularity", ["global", "layer", "block", "tensor"])
def test_optimizer_sees_modular_pcgrad_of_domain_gradients(ours, granularity):
    run = ours(granularity=granularity, max_steps=3, per_device_train_batch_size=3, gradient_accumulation_steps=8)
    conflicts = 0
    for step in range(3):
        expected = brute_force(run, granularity, step, run.trainer.args.seed)
        for name, value in run.gradients[step].items():
            assert relative_error(value, expected[name]) <= 1e-6, name
            summed = sum(g[name] for g in run.domain_gradients[step].values())
            conflicts += int(not torch.equal(value, summed))
    assert conflicts > 0


def test_five_domains(ours):
    from tests.support.rollouts import prompts

    data = prompts(8, domains=("a", "b", "c", "d", "e"))
    run = ours(dataset=data, per_device_train_batch_size=5, gradient_accumulation_steps=8, num_generations=4)
    expected = brute_force(run, "block", 0, run.trainer.args.seed)
    for name, value in run.gradients[0].items():
        assert relative_error(value, expected[name]) <= 1e-6, name


def test_offload_and_unequal_mixture_change_nothing_in_the_algebra(ours):
    run = ours(surgery_offload=True, mixture={"chat": 1, "instruction_following": 3, "math": 2})
    expected = brute_force(run, "block", 0, run.trainer.args.seed)
    for name, value in run.gradients[0].items():
        assert relative_error(value, expected[name]) <= 1e-6, name


def test_domain_weights_multiply_the_domain_gradients(ours):
    weights = {"chat": 3.0, "instruction_following": 1.0, "math": 0.5}
    run = ours(surgery="none", domain_weights=weights)
    recorded = run.domain_gradients[0]
    for name, value in run.gradients[0].items():
        parts = [weights[d] * recorded[i][name].double() for i, d in enumerate(sorted(weights))]
        assert relative_error(value, sum(parts)) <= 1e-6, name


def test_domain_weights_of_other_domains_are_refused(ours):
    with pytest.raises(ValueError, match=r"domain_weights has the domains \['chat', 'maths'\], but it must have"):
        ours(domain_weights={"chat": 1.0, "maths": 2.0})


def test_seed_fixes_the_run_and_surgery_seed_the_order(ours):
    """Invariant 5."""
    first, again = ours(max_steps=2, learning_rate=1e-3), ours(max_steps=2, learning_rate=1e-3)
    other = ours(max_steps=2, learning_rate=1e-3, surgery_seed=7)
    for name, value in first.parameters().items():
        assert torch.equal(value, again.parameters()[name])
    assert any(not torch.equal(v, other.parameters()[n]) for n, v in first.parameters().items())
