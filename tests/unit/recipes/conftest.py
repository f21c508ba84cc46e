"""A directory in the miniature's layout with untrained models: what recipes need, in a second instead of minutes."""

import json
from pathlib import Path

import pytest

TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
CHARACTERS = [chr(code) for code in range(32, 127)] + ["\n"]


def make_tokenizer():
    """One token per printable ASCII character."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", "<unk>", *CHARACTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), behavior="isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_directory(root: Path) -> Path:
    """`root/{policy,reward_model,data}` with random weights and a few rows of each domain."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 2048,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(root / "policy")
    LlamaForSequenceClassification(LlamaConfig(**sizes, num_labels=1)).save_pretrained(root / "reward_model")
    tokenizer.save_pretrained(root / "policy")
    tokenizer.save_pretrained(root / "reward_model")
    rows = {
        "math": [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(9)],
        "chat": [{"prompt": f"Say {word}."} for word in ("hello", "goodbye", "thanks", "please", "sorry")],
        "instruction_following": [
            {
                "prompt": f"Write about {topic} without commas.",
                "instruction_id_list": ["punctuation:no_comma"],
                "kwargs": [{}],
            }
            for topic in ("rain", "snow", "wind", "fog")
        ],
    }
    (root / "data").mkdir(parents=True)
    for name, lines in rows.items():
        for split, part in (("train", lines), ("heldout", lines[:2])):
            text = "".join(json.dumps(line) + "\n" for line in part)
            (root / "data" / f"{name}_{split}.jsonl").write_text(text)
    return root


@pytest.fixture(scope="session")
def directory(tmp_path_factory) -> Path:
    return make_directory(tmp_path_factory.mktemp("recipes") / "miniature")


@pytest.fixture
def miniature(directory, monkeypatch) -> Path:
    """The directory, and the environment in which recipes/miniature.yaml finds it."""
    monkeypatch.setenv("MGS_TRL_MINIATURE", str(directory))
    return directory


@pytest.fixture
def tokenizer():
    return make_tokenizer()
