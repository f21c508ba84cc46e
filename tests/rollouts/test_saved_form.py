"""Weights leave for vLLM as `save_pretrained` writes them."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mgs_trl import MGSTrainer
from mgs_trl.rollouts.saved_form import as_saved
from tests.conftest import build_tiny_policy
from tests.rollouts.test_colocated_cpu import build_model
from tests.rollouts.test_served import config
from tests.support.rollouts import prompts, reward
from tests.support.scripted_server import scripted_server


@pytest.mark.parametrize("kind", ["experts", "renamed_experts", "renamed_head"])
@pytest.mark.parametrize("adapted", [False, True])
def test_parameters_become_those_of_the_checkpoint(kind, adapted, tmp_path):
    build_model(kind).save_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32")
    parameters = list(model.named_parameters())
    policy = get_peft_model(model, LoraConfig(target_modules="all-linear")) if adapted else model
    found = dict(as_saved(policy, parameters))
    assert set(found) == set(written)
    assert all(torch.equal(found[name], written[name]) for name in written)


def test_whoever_stops_early_leaves_the_rest_to_be_gathered():
    """Gathering is collective: the writer that failed still takes its part in what the other ranks gather."""
    model = build_model("renamed_experts")
    parameters = (pair for pair in model.named_parameters())  # ends when it is closed, as TRL's does
    saved = as_saved(model, parameters)
    next(saved)
    saved.close()
    assert len(list(parameters)) == len(list(model.named_parameters())) - 1


def test_servers_find_the_checkpoints_names(tmp_path):
    policy = build_tiny_policy(tmp_path / "policy")
    build_model("renamed_head").save_pretrained(policy)
    with scripted_server(60) as server:
        trainer = MGSTrainer(str(policy), reward, config(tmp_path / "run", server, max_steps=1), prompts(4))
        trainer.train()
    published = dict(trainer.vllm_generation.directory.newest().tensors())
    written = load_file(policy / "model.safetensors")
    assert set(published) == set(written)
    assert all(torch.equal(published[name], written[name]) for name in written)
