"""Blocks of one domain are as wide as their own rows: less to compute, the same gradient."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DeepseekV3Config,
    FalconH1Config,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    OPTConfig,
    Qwen3Config,
    Qwen3NextConfig,
    RecurrentGemmaConfig,
)

from mgs_trl import MGSTrainer
from mgs_trl.training.padding import can_do_without_padding, positions_are_relative, trim
from tests.support.reference import relative_error

WORDS = {"chat": 40, "instruction_following": 9, "math": 3}


def uneven_prompts(rows_per_domain: int = 10) -> Dataset:
    """Prompts of 40, 9 and 3 words."""
    rows = [
        {"prompt": " ".join(f"w{(7 * i + 3 * word) % 150}" for word in range(count)), "domain": domain}
        for domain, count in WORDS.items()
        for i in range(rows_per_domain)
    ]
    return Dataset.from_list(rows)


@pytest.fixture
def seen(ours):
    """A run, and for each block of rows the columns of its prompts and the tokens of the longest."""

    def run(**settings):
        widths: list[tuple[int, int]] = []

        class Watched(MGSTrainer):
            def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, **kwargs):
                if self._block is not None:
                    prompts = attention_mask[:, :-logits_to_keep]
                    widths.append((prompts.size(1), int(prompts.sum(1).max())))
                return super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, **kwargs
                )

        return ours(dataset=uneven_prompts(), trainer_class=Watched, **settings), widths

    return run


@pytest.mark.parametrize("loss_type", ["dapo", "bnpo"])
def test_short_domains_leave_the_padding_of_long_ones_and_learn_the_same(seen, reference, loss_type):
    settings = {"max_steps": 3, "learning_rate": 1e-3, "loss_type": loss_type, "beta": 0.05, "num_iterations": 1}
    theirs = reference(dataset=uneven_prompts(), **settings)
    run, widths = seen(surgery="none", **settings)
    assert {width for width, _ in widths} == set(WORDS.values())
    assert all(width == longest for width, longest in widths)
    for name, value in theirs.parameters().items():
        assert relative_error(run.parameters()[name], value) <= 1e-5, name


def test_learned_prompts_keep_the_padding_behind_them(tiny_policy):
    """Their tokens stand before it: without it they would be nearer, hence attended to otherwise."""
    for adapter, may in (
        (LoraConfig(target_modules=["q_proj"]), True),
        (PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), False),
        (PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), False),
    ):
        policy = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_policy), adapter).eval()
        assert can_do_without_padding(policy) is may
        ids, mask = torch.arange(3, 9)[None], torch.ones(1, 6, dtype=torch.long)
        padded, there = torch.cat([torch.zeros_like(ids), ids], 1), torch.cat([torch.zeros_like(mask), mask], 1)
        with torch.no_grad():
            short, long = (
                policy(input_ids=i, attention_mask=m, position_ids=torch.arange(i.size(1))[None]).logits[:, -6:]
                for i, m in ((ids, mask), (padded, there))
            )
        same = torch.allclose(short, long, atol=1e-5)
        assert same or not may


def test_absolute_positions_are_left_as_trl_has_them(seen, reference, tiny_policy, tmp_path):
    """Without its padding a prompt of a GPT-2 would have other positions, hence other log-probabilities."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_policy)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=161, n_positions=64, n_embd=32, n_layer=2, n_head=4, eos_token_id=1, pad_token_id=0,
        bos_token_id=1, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    settings = {"policy": str(tmp_path / "gpt2")}
    theirs = reference(dataset=uneven_prompts(), **settings)
    run, widths = seen(surgery="none", **settings)
    assert {width for width, _ in widths} == {max(WORDS.values())}
    for name, value in theirs.gradients[0].items():
        assert relative_error(run.gradients[0][name], value) <= 1e-5, name


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(), True),
        (LlamaConfig(rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0,
                                      "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                      "original_max_position_embeddings": 64}), True),
        (LlamaConfig(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}), False),
        (Qwen3Config(), True),
        (Gemma3TextConfig(), True),
        (DeepseekV3Config(), True),
        (Llama4TextConfig(), False),
        (Qwen3NextConfig(), False),
        (FalconH1Config(), False),
        (Lfm2Config(), False),
        (RecurrentGemmaConfig(), False),
        (GPT2Config(), False),
        (OPTConfig(), False),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, bool) else str(value),
)  # fmt: skip
def test_which_policies_have_relative_positions(config, expected):
    assert positions_are_relative(config) is expected


def test_widths_are_multiples_and_every_tensor_of_tokens_is_cut():
    rows = {
        "prompt_ids": torch.tensor([[0, 0, 0, 5, 6, 7], [0, 0, 0, 0, 8, 9]]),
        "prompt_mask": torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]]),
        "completion_ids": torch.tensor([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0]]),
        "token_type_ids": torch.arange(22).view(2, 11),
        "advantages": torch.tensor([1.0, 2.0]),
        "num_items_in_batch": torch.tensor(3),
    }
    exact = trim(rows, [3, 2], [2, 1], 1)
    assert exact["prompt_ids"].tolist() == [[5, 6, 7], [0, 8, 9]]
    assert exact["completion_ids"].tolist() == [[1, 2], [3, 0]]
    assert exact["token_type_ids"].tolist() == [[3, 4, 5, 6, 7], [14, 15, 16, 17, 18]]
    assert exact["advantages"] is rows["advantages"]
    by_four = trim(rows, [3, 2], [2, 1], 4)
    assert (by_four["prompt_mask"].size(1), by_four["completion_ids"].size(1)) == (4, 4)
    assert trim(rows, (), [2, 1], 1)["prompt_ids"].size(1) == 6
    nothing = trim(rows, [0, 0], [0, 0], 1)
    assert (nothing["prompt_ids"].size(1), nothing["completion_ids"].size(1)) == (1, 1)
