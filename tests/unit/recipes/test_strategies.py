"""Strategies: the fields they set, and what they refuse. What the rules do to gradients is in tests/unit/surgery."""

import json

import pytest

from mgs_trl.arguments import build_config, trainer_fields
from mgs_trl.build import check_quotas
from mgs_trl.strategies import STRATEGIES, mean_weights, strategy_of
from mgs_trl.surgery import ConflictReport
from tests.unit.recipes.test_arguments import recipe

EXPECTED = {
    "mgs": ("pcgrad", "block", "none", 0.0),
    "global_surgery": ("pcgrad", "global", "none", 0.0),
    "mixed": ("none", "block", "none", 0.0),
    "observe": ("observe", "block", "none", 0.0),
    "normalized_advantage": ("none", "block", "none", 0.0),
    "balanced": ("none", "block", "domain", 0.0),
    "smoothed_balanced": ("none", "block", "domain", 0.9),
    "balanced_mgs": ("pcgrad", "block", "domain", 0.0),
    "smoothed_balanced_mgs": ("pcgrad", "block", "domain", 0.9),
    "balanced_global_surgery": ("pcgrad", "global", "domain", 0.0),
    "smoothed_balanced_global_surgery": ("pcgrad", "global", "domain", 0.9),
    "rescaled": ("rescaled", "block", "none", 0.0),
    "fixed_weights": ("none", "block", "none", 0.0),
    "single": ("none", "block", "none", 0.0),
    "sequential": ("none", "block", "none", 0.0),
    "merge": ("none", "block", "none", 0.0),
}
OPTIONS = {
    "fixed_weights": {"weights": {"chat": 2.0, "math": 0.5}},
    "single": {"domain": "math"},
    "sequential": {"order": ["math"]},
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_a_strategy_sets(name):
    config = build_config(recipe(strategy={name: OPTIONS[name]} if name in OPTIONS else name))
    assert (config.surgery, config.granularity, config.balance, config.gramian_ema) == EXPECTED[name]
    assert config.scale_rewards == ("batch" if name == "normalized_advantage" else "group")
    assert config.domain_weights == OPTIONS.get(name, {}).get("weights")


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("mixd", ["'mixd'", "Did you mean 'mixed'?"]),
        ({"single": {}}, ["strategy.single", "domain"]),
        ("single", ["strategy.single", "domain"]),
        ({"single": {"domain": "maths"}}, ["strategy.single.domain", "'maths'", "Did you mean 'math'?"]),
        ({"single": {"domian": "math"}}, ["'domian'", "Did you mean 'domain'?"]),
        ({"mgs": {"order": 1}}, ["strategy.mgs", "'order'", "allowed: none"]),
        ({"mgs": None, "mixed": None}, ["must be a name or one"]),
        ({"fixed_weights": {"from": "nowhere"}}, ["'nowhere'", "no conflicts.jsonl"]),
        ({"fixed_weights": {"from": "x", "weights": {}}}, ["needs one of weights, from"]),
        ({"fixed_weights": {"weights": {"chat": 0, "math": 1}}}, ["domain_weights.chat", "greater than 0"]),
        (["mgs"], ["must be a name or one"]),
    ],
)
def test_bad_strategies_are_one_sentence(strategy, words):
    with pytest.raises(ValueError) as caught:
        build_config(recipe(strategy=strategy))
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("strategy", "trainer"),
    [
        ("balanced", {"balance": "none"}),
        ("balanced", {"surgery": "pcgrad"}),
        ("balanced", {"gramian_ema": 0.9}),
        ({"fixed_weights": {"weights": {"chat": 2.0, "math": 0.5}}}, {"balance": "domain"}),
        ("smoothed_balanced_mgs", {"gramian_ema": 0.0}),
        ("smoothed_balanced_global_surgery", {"granularity": "block"}),
        ("normalized_advantage", {"scale_rewards": "group"}),
        ("rescaled", {"surgery": "pcgrad"}),
    ],
)
def test_fields_that_make_it_another_strategy_are_refused(strategy, trainer):
    name = strategy if isinstance(strategy, str) else next(iter(strategy))
    with pytest.raises(ValueError, match=f"contradicts strategy '{name}'"):
        trainer_fields(recipe(trainer, strategy=strategy))


def test_single_gives_its_domain_the_whole_batch():
    alone = recipe({"per_device_train_batch_size": 8, "num_generations": 4}, strategy={"single": {"domain": "math"}})
    config = build_config(alone)
    assert config.mixture == {"math": 1.0}
    assert check_quotas(alone, config) == {"math": config.prompts_per_window()}


def test_a_name_and_a_mapping_are_the_same_strategy():
    assert strategy_of(recipe(strategy="mgs")) == strategy_of(recipe(strategy={"mgs": None})) == ("mgs", {})


def test_mean_weights_of_a_run(tmp_path):
    """Norm-weighted means, by hand: domain a has squared norms 1 and 3 with weights 2 and 1, hence 5/4."""
    import torch

    gramian = torch.tensor([[[1.0, 0.0], [0.0, 4.0]], [[3.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    weights = torch.tensor([[2.0, 0.5], [1.0, 1.0]], dtype=torch.float64)
    report = ConflictReport(1, ("a", "b"), ("m0", "m1"), ("mlp", "mlp"), gramian, weights, ())
    (tmp_path / "conflicts.jsonl").write_text(json.dumps(report.to_json()) + "\n")
    assert mean_weights(str(tmp_path)) == pytest.approx({"a": 1.25, "b": 0.5})
