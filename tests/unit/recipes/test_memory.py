"""The preflight estimate: counted by hand, and against a model that was really loaded."""

import json

import pytest
from transformers import AutoModelForCausalLM

from mgs_trl import MGSConfig
from mgs_trl.layout import Layout, launch_layout
from mgs_trl.memory import GIB, check_fits, count_parameters, empty_policy, estimate


@pytest.fixture
def config(tmp_path):
    return MGSConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True)


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_as_the_loaded_model_has_them(tmp_path, tied):
    from tests.conftest import build_tiny_policy

    path = build_tiny_policy(tmp_path / "policy", tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_pretrained(path)
    empty, dtype = empty_policy(str(path))
    parameters = sum(p.numel() for p in model.parameters())
    assert count_parameters(empty) == (parameters, parameters) and dtype == "float32"


def test_of_an_adapter_only_its_own_parameters_are_trained(tiny_policy, config):
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(r=3, target_modules=["q_proj", "down_proj"], modules_to_save=["lm_head"])
    loaded = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_policy), adapter)
    trained, every = loaded.get_nb_trainable_parameters()
    empty, _ = empty_policy(str(tiny_policy))
    assert count_parameters(empty, adapter) == (every, trained)
    got = estimate(every, 3, config, Layout("zero2", 2), trained=trained)
    half = -(-trained // 2) * 4
    assert (got.weights, got.gradients, got.optimizer, got.kept) == (every * 4, half, 2 * half, 2 * half)


def test_an_adapter_that_does_not_fit_is_one_sentence(tiny_policy):
    from peft import LoraConfig

    empty, _ = empty_policy(str(tiny_policy))
    with pytest.raises(ValueError, match=r"peft: Target modules .*'query'"):
        count_parameters(empty, LoraConfig(target_modules=["query"]))


def test_seven_billion_on_eight_ranks(config):
    """By hand: fp32 weights, gradients and two moments of 7e9 parameters, two copies for three domains."""
    shard = 7_000_000_000 // 8 * 4
    got = estimate(7_000_000_000, 3, config, Layout("fsdp2", 8))
    assert (got.weights, got.gradients, got.optimizer, got.kept) == (shard, shard, 2 * shard, 2 * shard)
    assert got.device == 6 * shard
    ddp = estimate(7_000_000_000, 3, config, Layout("ddp", 8))
    assert ddp.kept == 2 * 28_000_000_000
    two = estimate(7_000_000_000, 3, config, Layout("zero2", 8))
    assert (two.weights, two.gradients, two.kept) == (28_000_000_000, shard, 2 * shard)


def test_what_holds_no_copies(config):
    config.surgery = "none"
    assert estimate(1000, 3, config, Layout("single", 1)).kept == 0
    config.balance = "domain"
    assert estimate(1000, 3, config, Layout("single", 1)).kept == 8000
    assert estimate(1000, 1, config, Layout("single", 1)).kept == 0


def test_offload_leaves_the_device(config):
    config.surgery_offload = True
    got = estimate(1000, 3, config, Layout("single", 1))
    assert got.kept == 8000 and got.device == 16_000


def test_f8_what_cannot_fit_is_refused_with_numbers(config):
    needed = estimate(7_000_000_000, 3, config, Layout("ddp", 8))
    with pytest.raises(ValueError, match=r"156.46 GiB before activations .* 80.00 GiB; set trainer.surgery_offload"):
        check_fits(needed, 80 * GIB)
    check_fits(needed, 200 * GIB)


def test_the_layout_follows_the_launcher(config, tmp_path):
    assert launch_layout(config, 1, {}) == Layout("single", 1)
    assert launch_layout(config, 4, {}) == Layout("ddp", 4)
    assert launch_layout(config, 4, {"ACCELERATE_USE_FSDP": "true"}) == Layout("fsdp2", 4)
    zero = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
    assert launch_layout(config, 8, zero) == Layout("zero3", 8)
    zero["ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE"] = "cpu"
    assert launch_layout(config, 8, zero) == Layout("zero3", 8, offload=True)
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 1, "offload_optimizer": {"device": "cpu"}}}))
    named = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
    assert launch_layout(config, 2, named) == Layout("zero1", 2, offload=True)
