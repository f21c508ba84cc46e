"""Every trainable parameter is in exactly one module, of the right kind, for real architectures."""

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

from mgs_trl.surgery import GRANULARITIES, KINDS, partition, partition_model

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 64, "head_dim": 8}  # fmt: skip
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
       "num_local_experts": 4, "decoder_sparse_step": 1}  # fmt: skip
ARCHITECTURES = [
    "Qwen2",
    "Qwen3",
    "Llama",
    "Mistral",
    "Gemma",
    "Gemma2",
    "Phi",
    "Phi3",
    "Olmo2",
    "GPTNeoX",
    "GPT2",
    "OPT",
]
MOE_ARCHITECTURES = ["Olmoe", "Qwen2Moe", "Qwen3Moe", "Mixtral"]


def model_of(name: str, **extra):
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **extra, "pad_token_id": 0})
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def kind_of(modules) -> dict[str, str]:
    return {name: module.kind for module in modules for name in module.parameters}


def expected_kind(name: str) -> str:
    """By the words a person would go by, written independently of the partition's own patterns."""
    for words, kind in (
        (("norm", "ln_", ".ln"), "norm"),
        (("router", "mlp.gate.", "shared_expert_gate", "block_sparse_moe.gate."), "router"),
        (("expert",), "expert"),
        (("attn", "attention"), "attention"),
        (("mlp", ".fc1", ".fc2"), "mlp"),
        (("lm_head", "embed_out"), "head"),
        (("embed", "wte", "wpe"), "embedding"),
    ):
        if any(word in name.lower() for word in words):
            return kind
    return "other"


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", ARCHITECTURES + MOE_ARCHITECTURES)
def test_partition_is_total_and_disjoint(name, granularity):
    model = model_of(name, **(MOE if name in MOE_ARCHITECTURES else {}))
    modules = partition_model(model, granularity)
    assigned = [parameter for module in modules for parameter in module.parameters]
    assert sorted(assigned) == sorted(n for n, _ in model.named_parameters())
    assert len({module.name for module in modules}) == len(modules)
    assert all(module.kind in KINDS for module in modules)


@pytest.mark.parametrize("name", ARCHITECTURES + MOE_ARCHITECTURES)
def test_kinds(name):
    model = model_of(name, **(MOE if name in MOE_ARCHITECTURES else {}))
    for with_classes in (
        partition_model(model, "block"),
        partition([n for n, _ in model.named_parameters()], "block"),
    ):
        kinds = kind_of(with_classes)
        wrong = {n: k for n, k in kinds.items() if k != expected_kind(n)}
        assert not wrong


@pytest.mark.parametrize("name", ["Qwen2", "Llama", "Mistral", "Phi3"])
def test_blocks_of_a_decoder(name):
    model = model_of(name, tie_word_embeddings=False)
    names = {module.name for module in partition_model(model, "block")}
    for layer in range(2):
        assert {
            f"model.layers.{layer}.{b}" for b in ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
        } <= names
    assert {"model.embed_tokens", "lm_head", "model.norm"} <= names
    assert len(names) == 2 * 4 + 3
    layers = {module.name for module in partition_model(model, "layer")}
    assert layers == {"model.layers.0", "model.layers.1", "model.embed_tokens", "lm_head", "model.norm"}


def test_qk_norms_are_norms_of_their_own():
    blocks = {m.name: m.kind for m in partition_model(model_of("Qwen3"), "block")}
    assert blocks["model.layers.0.self_attn.q_norm"] == "norm"
    assert blocks["model.layers.0.self_attn"] == "attention"


def test_tied_embeddings_count_once():
    model = model_of("Qwen2", tie_word_embeddings=True)
    modules = partition_model(model, "block")
    assert [m.kind for m in modules if m.kind in ("embedding", "head")] == ["embedding"]


def test_experts_and_routers_are_modules_of_their_own():
    names = [f"model.layers.0.mlp.experts.{e}.{p}_proj.weight" for e in range(3) for p in ("gate", "up", "down")]
    names += ["model.layers.0.mlp.gate.weight", "model.layers.0.mlp.shared_expert.up_proj.weight"]
    modules = {m.name: m for m in partition(names, "block")}
    assert [m for m in modules if "experts." in m] == [f"model.layers.0.mlp.experts.{e}" for e in range(3)]
    assert modules["model.layers.0.mlp.experts.1"].kind == "expert"
    assert len(modules["model.layers.0.mlp.experts.1"].parameters) == 3
    assert modules["model.layers.0.mlp.gate"].kind == "router"
    assert modules["model.layers.0.mlp.shared_expert"].kind == "expert"


@pytest.mark.parametrize(
    "block, tensors",
    [
        ("self_attn", ["sinks", "q_proj.weight", "o_proj.bias"]),  # GPT-OSS
        ("linear_attn", ["dt_bias", "A_log", "in_proj_qkvz.weight", "out_proj.weight"]),  # Qwen3-Next
        ("mamba", ["A_log", "D", "dt_bias", "in_proj.weight", "conv1d.weight"]),  # Granite 4
        ("conv", ["in_proj.weight", "conv.weight", "out_proj.weight"]),  # LFM2
    ],
)
def test_tensors_that_a_block_holds_itself_are_of_the_block(block, tensors):
    [module] = partition([f"model.layers.0.{block}.{tensor}" for tensor in tensors], "block")
    assert (module.name, module.kind) == (f"model.layers.0.{block}", "attention")


def test_blocks_that_all_have_one_name_are_of_the_kind_of_their_class():
    """Nemotron-H calls every block `mixer`, be it attention, Mamba, an MLP or a mixture of experts."""
    layers = ["mamba", "moe", "attention", "mlp"]
    config = transformers.NemotronHConfig(hidden_size=32, layers_block_type=layers, n_routed_experts=4)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    kinds = {m.name.removeprefix("model.layers."): m.kind for m in partition_model(model) if ".mixer" in m.name}
    assert kinds == {
        "0.mixer": "attention",
        "0.mixer.norm": "norm",
        "2.mixer": "attention",
        "3.mixer": "mlp",
        "1.mixer.experts": "expert",
        "1.mixer.gate": "router",
        "1.mixer.shared_experts": "expert",
    }


def test_a_layer_inside_a_layer_has_blocks():
    """Zamba2's shared one, of class `Zamba2AttentionDecoderLayer`."""
    config = transformers.Zamba2Config(hidden_size=32, num_hidden_layers=2, layers_block_type=["hybrid", "mamba"])
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    kinds = {m.name: m.kind for m in partition_model(model) if "shared_transformer" in m.name}
    assert {name.split(".")[-1]: kind for name, kind in kinds.items()} == {
        "self_attn": "attention",
        "feed_forward": "mlp",
        "input_layernorm": "norm",
        "pre_ff_layernorm": "norm",
    }


@pytest.mark.parametrize(
    "config, block",
    [
        (transformers.RecurrentGemmaConfig(hidden_size=32, num_hidden_layers=1, lru_width=32), "temporal_block"),
        (transformers.xLSTMConfig(hidden_size=32, num_heads=2, num_hidden_layers=1, vocab_size=64), "mlstm_layer"),
    ],
)
def test_recurrences_are_one_block(config, block):
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    modules = [m for m in partition_model(model) if f".{block}" in m.name and m.kind != "norm"]
    assert [(m.name.split(".")[-1], m.kind) for m in modules] == [(block, "attention")]
    assert len(modules[0].parameters) > 6


def test_projections_directly_in_a_layer_are_one_block():
    names = [f"model.layers.0.{name}.weight" for name in ("q_proj", "k_proj", "out_proj", "fc1", "fc2")]
    assert {m.name: len(m.parameters) for m in partition(names, "block")} == {
        "model.layers.0.attention": 3,
        "model.layers.0.mlp": 2,
    }


def test_blocks_of_torchs_own_layers():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    modules = {m.name.removeprefix("layers."): (m.kind, len(m.parameters)) for m in partition_model(model)}
    parts = {"self_attn": ("attention", 4), "mlp": ("mlp", 4), "norm1": ("norm", 2), "norm2": ("norm", 2)}
    assert modules == {f"{layer}.{name}": part for layer in (0, 1) for name, part in parts.items()}


def test_every_module_has_a_name():
    names = ["prompt_encoder.default.embedding.weight", "base_model.model.lora_A.default.weight", "head.weight"]
    modules = partition(names, "block")
    assert [m.name for m in modules] == ["prompt_encoder", "lora_A", "head"]
    assert modules[2].kind == "head"


def test_adapters_follow_the_module_they_adapt():
    model = get_peft_model(
        model_of("Qwen2", tie_word_embeddings=False),
        LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], modules_to_save=["lm_head"]),
    )
    modules = partition_model(model, "block")
    kinds = kind_of(modules)
    assert kinds and all("lora" in n or "modules_to_save" in n for n in kinds)
    assert all(kinds[n] == expected_kind(n) for n in kinds)
    assert {m.name for m in modules} == {
        *(f"model.layers.{i}.{b}" for i in (0, 1) for b in ("self_attn", "mlp")),
        "lm_head",
    }


def test_wrappers_do_not_change_names():
    plain = partition(["model.layers.0.self_attn.q_proj.weight"], "block")[0]
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        assert partition([f"{prefix}model.layers.0.self_attn.q_proj.weight"], "block")[0].name == plain.name


def test_unknown_architecture_still_gets_a_partition():
    class Strange(nn.Module):
        def __init__(self):
            super().__init__()
            self.alpha = nn.Parameter(torch.zeros(2))
            self.chunks = nn.ModuleList(
                nn.ModuleDict({"foo": nn.Linear(2, 2), "bar": nn.Bilinear(2, 2, 2)}) for _ in range(3)
            )

    model = Strange()
    for granularity in GRANULARITIES:
        modules = partition_model(model, granularity)
        assigned = [name for module in modules for name in module.parameters]
        assert sorted(assigned) == sorted(n for n, _ in model.named_parameters())
    assert {m.name for m in partition_model(model, "layer")} == {"alpha", "chunks.0", "chunks.1", "chunks.2"}
    assert {m.kind for m in partition_model(model, "block")} == {"other"}


def test_frozen_parameters_are_left_out():
    model = model_of("Llama")
    model.model.embed_tokens.requires_grad_(False)
    assert "model.embed_tokens" not in {m.name for m in partition_model(model, "block")}


def test_repeated_name_is_an_error():
    with pytest.raises(ValueError, match="occurs twice"):
        partition(["a.weight", "a.weight"])
