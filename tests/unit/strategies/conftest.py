"""Tiny policies and adapters to merge."""

import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

QUERY = "model.layers.0.self_attn.q_proj.weight"


def tiny(tie: bool = False) -> LlamaForCausalLM:
    sizes: dict[str, Any] = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, tie_word_embeddings=tie))


def moved(model: Any, seed: int, scale: float = 0.02) -> Any:
    """A copy some way from the model, as training would leave it."""
    torch.manual_seed(seed)
    other = LlamaForCausalLM(model.config)
    other.load_state_dict({name: value + scale * torch.randn_like(value) for name, value in model.state_dict().items()})
    other.tie_weights()
    return other


def tensors_of(directory: Path | str) -> dict[str, torch.Tensor]:
    return {name: value for file in Path(directory).glob("*.safetensors") for name, value in load_file(file).items()}


def float64_of(directory: Path | str) -> dict[str, numpy.ndarray]:
    return {name: value.double().numpy() for name, value in tensors_of(directory).items()}


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """`base`, and experts of `math` and `chat`; float32, one file each."""
    root = tmp_path_factory.mktemp("experts")
    torch.manual_seed(0)
    base = tiny()
    for seed, (name, model) in enumerate({"base": base, "math": base, "chat": base}.items()):
        (moved(model, seed) if name != "base" else model).save_pretrained(root / name)
    (root / "math" / "tokenizer.json").write_text("{}")
    (root / "math" / "chat_template.jinja").write_text("template of math")
    (root / "math" / "optimizer.pt").write_text("not to be copied")
    return {name: str(root / name) for name in ("base", "math", "chat")}


@pytest.fixture
def experts(places) -> dict[str, str]:
    return {name: places[name] for name in ("math", "chat")}


def save_adapter(base: str, directory: Path, seed: int, tie: bool = False, **options) -> str:
    torch.manual_seed(seed)
    settings = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"], **options}
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(str(directory))
    return str(directory)


@pytest.fixture(scope="module")
def adapters(places, tmp_path_factory) -> dict[str, str]:
    """Of different ranks, scales and modules."""
    root = tmp_path_factory.mktemp("adapters")
    return {
        "math": save_adapter(places["base"], root / "math", 1),
        "chat": save_adapter(places["base"], root / "chat", 2, r=2, lora_alpha=7, target_modules=["q_proj", "lm_head"]),
    }


def changed(places, tmp_path, name, change) -> str:
    """A copy of a policy after `change` of its tensors."""
    shutil.copytree(places[name], tmp_path / name)
    file = tmp_path / name / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})
    return str(tmp_path / name)
