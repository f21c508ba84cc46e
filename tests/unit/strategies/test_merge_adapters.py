"""Merging adapters, against their products added to the base by hand."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mgs_trl.strategies.merge import merge_experts
from mgs_trl.strategies.vectors import METHODS
from tests.unit.strategies.conftest import QUERY, save_adapter, tensors_of, tiny


def by_hand(base: str, adapters: dict[str, str], weights: dict[str, float]) -> dict[str, torch.Tensor]:
    """theta_0 + sum_d w_d alpha / r B A, in float64."""
    result = {name: value.double() for name, value in tensors_of(base).items()}
    for domain, directory in adapters.items():
        config = json.loads((Path(directory) / "adapter_config.json").read_text())
        saved = tensors_of(directory)
        for key in saved:
            if ".lora_A." in key:
                a, b = saved[key].double(), saved[key.replace(".lora_A.", ".lora_B.")].double()
                name = key.removeprefix("base_model.model.").replace(".lora_A", "")
                result[name] = result[name] + weights[domain] * config["lora_alpha"] / config["r"] * b @ a
    return result


def logits(state: dict[str, torch.Tensor]) -> torch.Tensor:
    model = tiny().double()
    model.load_state_dict({name: value.double() for name, value in state.items()})
    with torch.no_grad():
        return model(torch.arange(20)[None] % 32).logits


@pytest.mark.parametrize(
    "method, weights, shares",
    [
        ("linear", None, {"math": 0.5, "chat": 0.5}),
        ("linear", {"math": 1, "chat": 3}, {"math": 0.25, "chat": 0.75}),
        ("task_arithmetic", None, {"math": 0.5, "chat": 0.5}),
        ("task_arithmetic", {"math": 0.7, "chat": -0.4}, {"math": 0.7, "chat": -0.4}),
    ],
)
def test_adapters_add_their_products_to_the_base(places, adapters, tmp_path, method, weights, shares):
    merge_experts(places["base"], adapters, tmp_path / "out", method, weights)
    wanted = by_hand(places["base"], adapters, shares)
    assert not torch.allclose(wanted[QUERY], tensors_of(places["base"])[QUERY].double(), atol=1e-2)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    torch.testing.assert_close(logits(found), logits(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_adapters_merge_as_the_whole_policies_that_they_stand_for(places, adapters, tmp_path, method):
    whole = {}
    config = Path(places["base"]) / "config.json"
    for domain in adapters:
        state = by_hand(places["base"], {domain: adapters[domain]}, {domain: 1})
        (tmp_path / domain).mkdir()
        shutil.copy(config, tmp_path / domain)
        file = tmp_path / domain / "model.safetensors"
        save_file({name: value.float() for name, value in state.items()}, file, {"format": "pt"})
        whole[domain] = str(tmp_path / domain)
    merge_experts(places["base"], adapters, tmp_path / "adapters", method, density=None)
    merge_experts(places["base"], whole, tmp_path / "whole", method, density=None)
    found, wanted = tensors_of(tmp_path / "adapters"), tensors_of(tmp_path / "whole")
    assert set(found) == set(wanted)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_small_adapters_are_not_rounded_to_the_dtype_of_the_base(places, tmp_path):
    LlamaForCausalLM.from_pretrained(places["base"], dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    small = {}
    for seed, domain in enumerate(("math", "chat")):
        small[domain] = save_adapter(str(tmp_path / "base"), tmp_path / domain, seed)
        file = tmp_path / domain / "adapter_model.safetensors"
        tensors = {name: value * (1e-3 if ".lora_B." in name else 1) for name, value in load_file(file).items()}
        save_file(tensors, file, {"format": "pt"})
    merge_experts(str(tmp_path / "base"), small, tmp_path / "out", "task_arithmetic", {"math": 1000, "chat": 1000})
    wanted = by_hand(str(tmp_path / "base"), small, {"math": 1000, "chat": 1000})
    for name, tensor in tensors_of(tmp_path / "out").items():
        torch.testing.assert_close(tensor.double(), wanted[name], rtol=2**-8, atol=1e-4)


def test_one_adapter_of_any_kind_becomes_a_whole_policy(places, tmp_path):
    """DoRA and a module trained in full, against PEFT's own model; bfloat16 and the tokenizer are the base's."""
    base = LlamaForCausalLM.from_pretrained(places["base"], dtype=torch.bfloat16)
    base.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text("{}")
    directory = save_adapter(
        str(tmp_path / "base"), tmp_path / "adapter", 4, use_dora=True, modules_to_save=["lm_head"]
    )
    merge_experts(str(tmp_path / "base"), {"": directory}, tmp_path / "out")
    adapted = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(places["base"]), directory).merge_and_unload()
    found = tensors_of(tmp_path / "out")
    assert set(found) == set(tensors_of(places["base"]))
    # PEFT's on a base that was not rounded to bfloat16; the differences are roundings.
    for name, wanted in adapted.state_dict().items():
        assert found[name].dtype == torch.bfloat16
        torch.testing.assert_close(found[name].float(), wanted, rtol=2**-6, atol=1e-3)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    assert (tmp_path / "out" / "tokenizer_config.json").is_file()


# Mistakes.


def test_adapters_that_cannot_be_merged(places, adapters, tmp_path):
    torch.manual_seed(0)
    tiny(tie=True).save_pretrained(tmp_path / "tied")
    head = {"math": adapters["chat"]}
    with pytest.raises(
        ValueError, match=r"^the adapter '.*' cannot be merged into '.*tied': it adapts lm_head, whose weight"
    ):
        merge_experts(str(tmp_path / "tied"), head, tmp_path / "out")
    config = LlamaConfig(
        vocab_size=32, hidden_size=20, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "wider")
    with pytest.raises(ValueError, match=r"^the adapter '.*' cannot be merged into '.*wider': .*size mismatch"):
        merge_experts(str(tmp_path / "wider"), head, tmp_path / "out")
