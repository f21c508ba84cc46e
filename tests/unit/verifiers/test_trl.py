"""Our verifiers as reward functions of TRL's own GRPOTrainer, without our trainer, on rows of three domains."""

import pytest
from datasets import Dataset

from mgs_trl.verifiers import RewardModelVerifier, build_verifier, ifeval_verifier, math_verifier


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    import test_reward_model as parts
    from transformers import LlamaForCausalLM

    path = tmp_path_factory.mktemp("policy")
    LlamaForCausalLM(parts.config(max_position_embeddings=256)).save_pretrained(path)
    tokenizer = parts.tokenizer(template=None)
    tokenizer.pad_token = "<unk>"
    tokenizer.save_pretrained(path)
    return str(path)


ROWS = [
    {"prompt": "a b c", "domain": "chat", "answer": None, "instruction_id_list": None, "kwargs": None},
    {"prompt": "d e f", "domain": "math", "answer": "5", "instruction_id_list": None, "kwargs": None},
    {
        "prompt": "g h i",
        "domain": "instruction_following",
        "answer": None,
        "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"],
        "kwargs": [{"num_words": None}, {"num_words": None}],
    },
    {"prompt": "j k l", "domain": "math", "answer": "7", "instruction_id_list": None, "kwargs": None},
]


def test_a_step_of_grpo_trainer_scores_every_row_by_its_own_verifier(policy, tmp_path):
    import test_reward_model as parts
    import torch
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    reward_model = parts.LlamaForSequenceClassification(parts.config())
    chat = RewardModelVerifier("chat", model=reward_model, tokenizer=parts.tokenizer())
    ((own, _),) = build_verifier("misbehaving:async_length_reward", "math")
    arguments = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        num_generations=2,
        max_completion_length=8,
        max_steps=1,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    seen = {}

    def spy(**columns):
        seen.update(columns)
        return [0.0] * len(columns["prompts"])

    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=[math_verifier, ifeval_verifier, chat, own, spy],
        args=arguments,
        train_dataset=Dataset.from_list(ROWS),
    )
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "reward" in entry)
    columns = {name: value for name, value in seen.items() if isinstance(value, list)}
    for verifier in (math_verifier, ifeval_verifier, chat):
        scores = [score for score in verifier(**columns) if score is not None]
        assert len(scores) == columns["domain"].count(verifier.domains[0]) > 0
        assert log[f"rewards/{verifier.__name__}/mean"] == pytest.approx(sum(scores) / len(scores), rel=1e-4)
        assert log[f"verifier/{verifier.__name__}/errors"] == 0.0
    assert "rewards/math/async_length_reward/mean" in log
    assert 0.0 < log["rewards/instruction_following/ifeval/mean"] < 1.0  # no comma, but no title
