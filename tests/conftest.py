"""A tiny policy and tiny data, made here: no test needs the network or a GPU."""

import gc
import os
from pathlib import Path

# Models this small are fastest on one thread, and two test processes on two cores would fight over more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

DOMAINS = ("chat", "instruction_following", "math")


def build_tiny_policy(directory: Path, **overrides) -> Path:
    """A Llama of some 40k parameters with a word-level tokenizer; sizes that no world size divides."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *[f"w{i}" for i in range(158)]]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    tokenizer.save_pretrained(directory)
    settings = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        **overrides,
    }
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**settings)).to(torch.float32).save_pretrained(directory)
    return directory


@pytest.fixture
def offline_wandb(tmp_path, monkeypatch):
    """wandb that writes below `tmp_path`; a process asks for the directory once, unless wandb is torn down."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    yield wandb
    wandb.teardown()


@pytest.fixture(scope="module", autouse=True)
def environment():
    """What TRL sets for a colocated engine (RANK, WORLD_SIZE, MASTER_PORT, ...) is not the next file's to inherit."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module", autouse=True)
def collected():
    """Every training run collects garbage; looking through what was imported would take most of a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory) -> str:
    return str(build_tiny_policy(tmp_path_factory.mktemp("tiny-policy")))
