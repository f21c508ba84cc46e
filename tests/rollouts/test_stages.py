"""Stages of a sequence with a vLLM engine each, in one process: the one before is gone before the next is made."""

import logging
import weakref

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from mgs_trl.build import build_trainer, release
from mgs_trl.recipe import load_recipe
from mgs_trl.rollouts.colocated import _engine_model
from mgs_trl.runs.staged import train_strategy
from tests.unit.recipes.conftest import make_directory

pytest.importorskip("vllm", reason="vllm is not installed")


@pytest.fixture
def no_logging():
    """pytest keeps log records, and they what was logged."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.usefixtures("no_logging")
def test_a_stage_frees_its_policy_and_its_engine(tmp_path, monkeypatch):
    directory = make_directory(tmp_path / "miniature")
    monkeypatch.setenv("MGS_TRL_MINIATURE", str(directory))
    config = LlamaConfig.from_pretrained(directory / "policy", head_dim=32)  # vLLM's attention wants no smaller heads
    LlamaForCausalLM(config).save_pretrained(directory / "policy")
    overrides = [
        "strategy={sequential: {order: [chat, math]}}",
        "rollout=vllm",
        "trainer.use_cpu=true",
        "trainer.max_steps=2",
        "trainer.per_device_train_batch_size=8",
        "trainer.num_generations=2",
        "trainer.max_completion_length=4",
        "trainer.vllm_max_model_length=128",
        "trainer.weight_check_syncs=1",  # the second engine has the second policy's weights, at every step
        f"trainer.output_dir={tmp_path / 'out'}",
    ]
    held: list[weakref.ref] = []

    def train(recipe, first):
        assert all(reference() is None for reference in held)
        trainer = build_trainer(recipe)
        engine, _ = _engine_model(trainer.vllm_generation.llm)
        held.extend(weakref.ref(thing) for thing in (trainer, trainer.model, engine, trainer.vllm_generation.llm))
        trainer.train()
        trainer.save_model()
        release(trainer)
        return 0

    assert train_strategy(load_recipe("miniature", overrides), train) == 0
    assert len(held) == 8 and all(reference() is None for reference in held)
    assert (tmp_path / "out" / "model.safetensors").is_file()
