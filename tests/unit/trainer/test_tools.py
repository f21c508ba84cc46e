"""A policy that calls tools: the turns after a call, what counts as its own tokens, and what is refused."""

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen2_5_chat_template

from mgs_trl import MGSConfig, MGSTrainer
from tests.unit.trainer.conftest import SETTINGS

CALL = '<tool_call>\n{"name": "repeat", "arguments": {"times": %d}}\n</tool_call><|im_end|>'
DOMAINS = ("agent", "chat", "math")


def repeat(times: int) -> str:
    """Says a word several times.

    Args:
        times: how often.
    """
    return "echo " * times


class Caller(LlamaForCausalLM):
    """Writes a script instead of samples: in the domain `agent` every other completion calls the tool."""

    tokenizer: PreTrainedTokenizerFast
    written = 0

    def generate(self, input_ids, attention_mask, **options):
        turns = []
        for ids, mask in zip(input_ids, attention_mask.bool(), strict=True):
            text = self.tokenizer.decode(ids[mask])
            self.written += 1
            calls = "agent" in text and self.written % 2 and "echo" not in text
            said = CALL % (self.written % 3 + 1) if calls else "y" * (self.written % 5 + 1) + "<|im_end|>"
            turns.append(torch.tensor(self.tokenizer(said)["input_ids"]))
        turns = torch.nn.utils.rnn.pad_sequence(turns, batch_first=True, padding_value=0)
        return torch.cat([input_ids, turns], dim=1)


@pytest.fixture(scope="module")
def caller(tmp_path_factory) -> str:
    """A tokenizer of bytes, and a policy of some 30k parameters."""
    folder = tmp_path_factory.mktemp("caller")
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    raw = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=words[0], eos_token=words[2], additional_special_tokens=[words[1]],
        padding_side="left", chat_template=qwen2_5_chat_template,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=44, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def build(trainer_class, config_class, policy: str, folder, domains=DOMAINS, **settings):
    model = Caller.from_pretrained(policy, dtype=torch.float32)
    model.tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    rows = [
        {"prompt": [{"role": "user", "content": f"{domain} {i}"}], "domain": domain}
        for domain in domains
        for i in range(4)
    ]
    settings = {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 4, "beta": 0.1, **settings}
    args = config_class(output_dir=str(folder), **{**SETTINGS, "max_completion_length": 200, **settings})
    return trainer_class(
        model, lengths, args, Dataset.from_list(rows), processing_class=model.tokenizer, tools=[repeat]
    )


def lengths(completion_ids, **columns) -> list[float]:
    return [float(len(ids)) for ids in completion_ids]


def test_of_one_domain_they_are_grpo_trainers(caller, tmp_path):
    settings = {"domains": ("agent",), "max_steps": 1, "num_generations": 8}
    theirs = build(GRPOTrainer, GRPOConfig, caller, tmp_path / "trl", **settings)
    theirs.train()
    ours = build(MGSTrainer, MGSConfig, caller, tmp_path / "ours", **settings)
    ours.train()
    log = ours.state.log_history[0]
    assert log["tools/call_frequency"] == theirs.state.log_history[0]["tools/call_frequency"] > 0.3
    for name, value in theirs.model.named_parameters():
        assert torch.equal(dict(ours.model.named_parameters())[name], value)
    assert log["domain/agent/mean_length"] == pytest.approx(log["completions/mean_length"])


def test_of_several_domains_only_the_policys_tokens_are_counted_and_trained(caller, tmp_path):
    trainer = build(MGSTrainer, MGSConfig, caller, tmp_path)
    masks = []

    def watch(block) -> None:
        masks.append((block.domain, block.get("tool_mask"), block["completion_mask"]))

    compute = trainer.compute_loss
    trainer.compute_loss = lambda model, inputs, **options: (watch(inputs), compute(model, inputs, **options))[1]
    trainer.train()
    log = trainer.state.log_history[0]
    means = [log[f"domain/{name}/mean_length"] for name in DOMAINS]
    assert sum(means) / 3 == pytest.approx(log["completions/mean_length"])  # of as many rows each
    assert max(means) == means[0]
    tools = {DOMAINS[d] for d, tool, mask in masks if int((mask * (1 - tool)).sum()) > 0}
    assert tools == {"agent"}
    for name, mean in zip(DOMAINS, means, strict=True):
        own = sum(int((mask * tool).sum()) for d, tool, mask in masks if DOMAINS[d] == name)
        assert own / 8 == pytest.approx(mean)


def test_sampling_by_domain_is_refused_before_the_policy_is_loaded():
    args = MGSConfig(output_dir="unused", **{**SETTINGS, "sampling": {"math": {"temperature": 0.5}}})
    rows = [{"prompt": "w1", "domain": domain} for domain in DOMAINS for _ in range(4)]
    with pytest.raises(ValueError, match=r"^sampling differs between domains, but tools take one .*; use one\.$"):
        MGSTrainer("no/such-model", lengths, args, Dataset.from_list(rows), tools=[repeat])


@pytest.mark.parametrize(
    ("name", "value", "alone"), [("vllm_mode", "server", "colocate"), ("vllm_tensor_parallel_size", 2, 1)]
)
def test_ranks_that_draw_together_are_refused(name, value, alone):
    """Their turns after a call differ in number, but TRL cuts what was drawn into as many for each."""
    ranks = type("Ranks", (MGSConfig,), {"world_size": property(lambda self: 2)})
    settings = {**SETTINGS, "per_device_train_batch_size": 2, "use_vllm": True, name: value}
    data = Dataset.from_list([{"prompt": "w1", "domain": domain} for domain in DOMAINS for _ in range(4)])
    args = ranks(output_dir="unused", **settings)
    with pytest.raises(
        ValueError, match=rf"^{name} is {value!r}, but with tools each of the 2 ranks .* to {alone!r}\.$"
    ):
        MGSTrainer("no/such-model", lengths, args, data, tools=[repeat])
