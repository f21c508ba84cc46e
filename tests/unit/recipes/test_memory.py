"""The preflight estimate: counted by hand, and against a model that was really loaded."""

import json

import pytest
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.ranks.layout import Layout, launch_layout
from mgs_trl.ranks.memory import GIB, check_fits, count_parameters, empty_policy, estimate, with_adapter
from mgs_trl.train import main
from tests.support.rollouts import prompts, reward

LORA = "peft={r: 2, target_modules: [q_proj]}"


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
    from peft import get_peft_model

    adapter = LoraConfig(r=3, target_modules=["q_proj", "down_proj"], modules_to_save=["lm_head"])
    loaded = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_policy), adapter)
    trained, every = loaded.get_nb_trainable_parameters()
    empty, _ = empty_policy(str(tiny_policy))
    assert count_parameters(with_adapter(empty, adapter)) == (every, trained)
    got = estimate(every, 3, config, Layout("zero2", 2), trained=trained)
    half = -(-trained // 2) * 4
    assert (got.weights, got.gradients, got.optimizer, got.kept) == (every * 4, half, 2 * half, 2 * half)


def test_an_adapter_that_does_not_fit_is_one_sentence(tiny_policy):
    empty, _ = empty_policy(str(tiny_policy))
    with pytest.raises(ValueError, match=r"peft: Target modules .*'query'"):
        with_adapter(empty, LoraConfig(target_modules=["query"]))


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


def test_fsdp2_trains_in_float32_under_mixed_precision(config):
    """accelerate casts what is trained, and TRL leaves the reference as it was loaded. By hand, two copies."""
    config.bf16, config.beta = True, 0.1
    got = estimate(8000, 3, config, Layout("fsdp2", 8), "bfloat16")
    assert (got.weights, got.gradients, got.optimizer, got.kept, got.reference) == (4000, 4000, 8000, 8000, 2000)
    got = estimate(8000, 3, config, Layout("fsdp2", 8), "bfloat16", trained=800)
    assert (got.weights, got.gradients, got.optimizer) == (2000 + 200, 400, 800)
    config.bf16 = False
    got = estimate(8000, 3, config, Layout("fsdp2", 8), "bfloat16")
    assert (got.weights, got.gradients, got.optimizer) == (2000, 2000, 4000)


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


@pytest.mark.parametrize(
    ("dtype", "beta", "adapter"),
    [("float32", 0.1, False), ("bfloat16", 0.1, False), ("float32", 0.0, False), ("float32", 0.1, True)],
)
def test_the_reference_is_as_large_as_trl_loads_it(tiny_policy, tmp_path, dtype, beta, adapter):
    peft = LoraConfig(r=2, target_modules=["q_proj"]) if adapter else None
    args = MGSConfig(str(tmp_path), bf16=False, use_cpu=True, beta=beta, num_generations=2,
                     per_device_train_batch_size=12, model_init_kwargs={"dtype": dtype})  # fmt: skip
    trainer = MGSTrainer(str(tiny_policy), reward, args, prompts(4), peft_config=peft)
    loaded = [] if trainer.ref_model is None else list(trainer.ref_model.parameters())
    empty, _ = empty_policy(str(tiny_policy))
    parameters, trained = count_parameters(with_adapter(empty, peft))
    got = estimate(parameters, 3, args, Layout("single", 1), dtype, trained, adapter)
    assert bool(loaded) == (beta > 0 and not adapter)
    assert got.reference == sum(p.numel() * p.element_size() for p in loaded)


def test_the_reference_lies_where_the_weights_do(config):
    """By hand, for 7e9 parameters on eight ranks: TRL shards it under ZeRO-3 and FSDP2, and DeepSpeed casts it."""
    config.beta = 0.001
    whole, shard = 28_000_000_000, 3_500_000_000
    for engine, size in {"ddp": whole, "zero1": whole, "zero2": whole, "zero3": shard, "fsdp2": shard}.items():
        assert estimate(7_000_000_000, 3, config, Layout(engine, 8)).reference == size
    got = estimate(7_000_000_000, 3, config, Layout("fsdp2", 8))
    assert got.device == 7 * shard and "3.26 GiB weights of the KL reference, 3.26 GiB gradients" in got.line()
    hosted = estimate(7_000_000_000, 3, config, Layout("zero3", 8, offload=True, offload_weights=True))
    assert hosted.device == 0 and "KL reference on the host" in hosted.line()
    config.bf16 = True
    assert estimate(7_000_000_000, 3, config, Layout("zero2", 8)).reference == whole // 2
    assert estimate(7_000_000_000, 3, config, Layout("ddp", 8)).reference == whole  # its forward alone is in bf16


@pytest.mark.parametrize(
    "changes, shown", [(["trainer.beta=0.1"], True), ([], False), (["trainer.beta=0.1", LORA], False)]
)
def test_a_check_counts_the_reference(miniature, capsys, changes, shown):
    assert main(["miniature", "rollout=transformers", "--check", *changes]) == 0
    assert ("weights of the KL reference" in " ".join(capsys.readouterr().out.split())) == shown
