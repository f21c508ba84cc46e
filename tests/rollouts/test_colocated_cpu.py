"""A real vLLM engine on CPU inside the trainer: it must generate with the policy's weights of this very step (V5)."""

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    TrainerCallback,
)

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.build import release
from tests.conftest import build_tiny_policy
from tests.support.rollouts import prompts

pytest.importorskip("vllm", reason="vLLM is not installed")


# vLLM's attention wants heads of at least 32.
SIZES = {"vocab_size": 161, "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}


TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "max_position_embeddings": 128}
LAYERS = {**TOKENS, "num_hidden_layers": 2}
EXPERTS = {**SIZES, **LAYERS, "num_experts_per_tok": 2}


def build_model(kind: str):
    """Of a family that vLLM knows under other names or in other pieces than transformers."""
    torch.manual_seed(0)
    if kind == "experts":
        return Qwen3MoeForCausalLM(Qwen3MoeConfig(**EXPERTS, num_experts=4, moe_intermediate_size=32))
    if kind == "renamed_experts":
        return MixtralForCausalLM(MixtralConfig(**EXPERTS, num_local_experts=4, intermediate_size=64))
    neox = GPTNeoXConfig(vocab_size=161, hidden_size=64, num_attention_heads=2, intermediate_size=96, **LAYERS)
    return GPTNeoXForCausalLM(neox)


@pytest.fixture(scope="module", params=["own_head", "tied_head", "renamed_head", "experts", "renamed_experts"])
def policy(request, tmp_path_factory) -> str:
    tied = request.param == "tied_head"
    directory = build_tiny_policy(tmp_path_factory.mktemp("vllm-policy"), **SIZES, tie_word_embeddings=tied)
    if request.param == "experts":
        from vllm.distributed.parallel_state import destroy_model_parallel

        destroy_model_parallel()  # an engine without experts has left groups without one for them
    if not request.param.endswith(("own_head", "tied_head")):
        build_model(request.param).to(torch.float32).save_pretrained(directory)
    return str(directory)


def reward(completion_ids, **kwargs):
    return [float(ids[0] % 7) + 0.1 * (len(ids) % 3) for ids in completion_ids]


class GreedyAgreement(TrainerCallback):
    """After every optimizer step: weights pushed, greedy tokens of both sides."""

    def __init__(self):
        self.trainer = None
        self.compared: list[tuple[list[int], list[int]]] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.vllm_generation.sync_weights()
        self.trainer._last_loaded_step = state.global_step
        self.compare(self.trainer)

    def compare(self, trainer):
        from vllm import SamplingParams

        for prompt in ("w3 w5 w8", "w30 w31", "w90 w7 w7 w100"):
            ids = trainer.processing_class(prompt)["input_ids"]
            out = trainer.vllm_generation.llm.generate(
                [{"prompt_token_ids": ids}],
                SamplingParams(temperature=0, max_tokens=8, ignore_eos=True),
                use_tqdm=False,
            )
            theirs = list(out[0].outputs[0].token_ids)
            tokens = torch.tensor([ids])
            with torch.no_grad():
                for _ in range(8):
                    step = trainer.model(tokens).logits[:, -1].argmax(-1, keepdim=True)
                    tokens = torch.cat([tokens, step], dim=1)
            self.compared.append((tokens[0, len(ids) :].tolist(), theirs))


def assert_best_policy_generates(trainer, check, best):
    """`load_best_model_at_end` changes the weights and not the step: the evaluation after it must have them."""
    last = check.compared[-1][0]
    trainer.state.best_model_checkpoint = best
    trainer._load_best_model()
    trainer.evaluate(trainer.train_dataset)
    check.compare(trainer)
    ours, theirs = check.compared.pop()
    assert ours == theirs != last


def test_greedy_tokens_equal_transformers_after_every_step(policy, tmp_path):
    args = MGSConfig(
        output_dir=str(tmp_path), use_vllm=True, vllm_mode="colocate", vllm_max_model_length=64, use_cpu=True,
        bf16=False, per_device_train_batch_size=8, gradient_accumulation_steps=3, num_generations=4, max_steps=3,
        learning_rate=0.02, max_completion_length=8, logging_steps=1, report_to=[], save_strategy="no",
        disable_tqdm=True, model_init_kwargs={"dtype": "float32"},
    )  # fmt: skip
    check = GreedyAgreement()
    trainer = MGSTrainer(policy, reward, args, prompts(10), callbacks=[check])
    check.trainer = trainer
    trainer.train()
    assert len(check.compared) == 9
    assert [ours for ours, _ in check.compared] == [theirs for _, theirs in check.compared]
    assert len({tuple(ours) for ours, _ in check.compared}) > 3  # the steps do change what is generated
    differences = [log["sampling/sampling_logp_difference/max"] for log in trainer.state.log_history if "reward" in log]
    assert len(differences) == 3
    assert max(differences) < 0.02
    assert_best_policy_generates(trainer, check, policy)
    release(trainer)  # an engine that is collected later takes the next one's process groups along
