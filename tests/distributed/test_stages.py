"""Strategies of several runs on several ranks: every stage is trained by all of them, what comes between by one."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.launch import ROOT
from tests.distributed.test_launch import RECIPE, launcher, overrides
from tests.unit.recipes.conftest import make_directory

ADAPTER = "peft={r: 2, target_modules: [q_proj, down_proj], init_lora_weights: gaussian}"
QUERY = "model.layers.0.self_attn.q_proj.weight"


def run(name: str, folder, *more: str):
    verifier = '{"tests.support.rollouts:reward": {isolated: false}}'
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=folder, batch=2, verifier=verifier))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    environment |= {"DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", *launcher(name, folder), str(recipe), *overrides(name, folder)]
    settings = ["trainer.learning_rate=0.01", "trainer.lr_scheduler_type=constant", "trainer.max_steps=1"]
    done = subprocess.run([*command, *settings, *more], env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return folder / "out"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "zero3"])
def test_a_sequence_of_adapters(tmp_path, name):
    """Between stages one rank merges the adapter; under ZeRO-3 it must load the model whole, not its part of it."""
    folder = make_directory(tmp_path)
    before = load_file(folder / "policy" / "model.safetensors")
    out = run(name, folder, "strategy={sequential: {order: [chat, math]}}", ADAPTER)
    first, last = load_file(out / "1_chat" / "model.safetensors"), load_file(out / "model.safetensors")
    config = json.loads((out / "1_chat" / "adapter" / "adapter_config.json").read_text())
    adapter = load_file(out / "1_chat" / "adapter" / "adapter_model.safetensors")
    down, up = (adapter[f"base_model.model.{QUERY.removesuffix('.weight')}.lora_{x}.weight"].double() for x in "AB")
    expected = before[QUERY].double() + config["lora_alpha"] / config["r"] * up @ down
    assert torch.allclose(first[QUERY].double(), expected, rtol=1e-6, atol=1e-7)
    assert up.abs().max() > 0
    assert {name: value.shape for name, value in last.items()} == {name: value.shape for name, value in before.items()}
    assert not torch.equal(last[QUERY], first[QUERY])
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in steps if "loss" in line] == [("1_chat", 1), ("2_math", 2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_experts_trained_merged_and_evaluated_under_deepspeed(tmp_path, name):
    """DeepSpeed evaluates no model that it did not train, unless it shards it."""
    folder = make_directory(tmp_path)
    settings = ["~domains.instruction_following", f"domains.math.eval_dataset={folder}/data/math_heldout.jsonl"]
    out = run(name, folder, *settings, "strategy={merge: {weights: {math: 3, chat: 1}}}")
    [scored] = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert "eval_domain/math/reward" in scored
    math, chat = (load_file(out / f"expert_{name}" / "model.safetensors") for name in ("math", "chat"))
    for tensor, value in load_file(out / "model.safetensors").items():
        expected = (3 * math[tensor].double() + chat[tensor].double()) / 4
        assert torch.allclose(value.double(), expected, rtol=1e-6, atol=1e-8), tensor
