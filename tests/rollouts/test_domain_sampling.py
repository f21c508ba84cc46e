"""One call of a real vLLM engine for domains that are sampled differently."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.build import build_trainer, release
from mgs_trl.recipe import load_recipe
from mgs_trl.rollouts.sampling import VLLM_LEAST_TEMPERATURE
from tests.conftest import build_tiny_policy
from tests.support.rollouts import prompts
from tests.unit.recipes.conftest import make_directory

pytest.importorskip("vllm", reason="vLLM is not installed")

SAMPLING = {
    "chat": {"temperature": 0.6, "max_completion_length": 5, "stop": ["never written"]},
    "instruction_following": {"temperature": 1.4, "stop": ["w1"]},  # w1, w10 to w19, w100 to w157
    "math": {"temperature": 0.2, "max_completion_length": 9},
}
SPECIAL = [f"w{i}" for i in range(100, 130)]  # as `<|im_end|>` is in others: text that skips them does not show them


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    directory = build_tiny_policy(tmp_path_factory.mktemp("vllm-policy"), vocab_size=161, **sizes)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.save_pretrained(directory)
    return str(directory)


def test_every_domain_is_drawn_cut_and_counted_in_its_own_way(policy, tmp_path):
    from vllm import SamplingParams

    written = []

    def reward(completion_ids, domain, prompts, **kwargs):
        written.extend(zip(domain, prompts, completion_ids, strict=True))
        return [float(ids[0] % 7) + 0.1 * (len(ids) % 3) for ids in completion_ids]

    args = MGSConfig(
        output_dir=str(tmp_path), use_vllm=True, vllm_mode="colocate", vllm_max_model_length=64, use_cpu=True,
        bf16=False, per_device_train_batch_size=8, gradient_accumulation_steps=3, num_generations=4, max_steps=3,
        learning_rate=0.005, max_completion_length=20, logging_steps=1, report_to=[], save_strategy="no",
        disable_tqdm=True, model_init_kwargs={"dtype": "float32"}, sampling=SAMPLING, mask_truncated_completions=True,
    )  # fmt: skip
    data = prompts(10)
    long = " ".join(f"w{i % 90}" for i in range(100))  # longer than the context of 64
    data = data.map(lambda row: {"prompt": long} if row["number"] < 5 else {})
    trainer = MGSTrainer(policy, reward, args, data)
    trainer.train()

    logs = [log for log in trainer.state.log_history if "reward" in log]
    assert len(logs) == 3 and len(written) == 72
    # Engine and policy agree on every token, each at its row's temperature.
    assert max(log["sampling/sampling_logp_difference/max"] for log in logs) < 0.02
    tokenizer = AutoTokenizer.from_pretrained(policy)
    by_domain = {name: [ids for domain, _, ids in written if domain == name] for name in SAMPLING}
    assert max(map(len, by_domain["chat"])) == 5
    assert max(map(len, by_domain["math"])) <= 9
    stopped = 0
    for ids in by_domain["instruction_following"]:
        words = tokenizer.decode([token for token in ids if token != tokenizer.eos_token_id]).split()
        assert len(ids) <= 20
        assert not any(word.startswith("w1") for word in words[:-1])
        stopped += words[-1].startswith("w1") if words else 0
    assert stopped > 6
    assert any(tokenizer.decode(ids[-1]) in SPECIAL for ids in by_domain["instruction_following"])
    # Cut is what neither stopped nor ended.
    for name, rows in by_domain.items():
        cut = sum(
            ids[-1] != 1 and not (name == "instruction_following" and "w1" in tokenizer.decode(ids)) for ids in rows
        )
        logged = sum(log[f"domain/{name}/clipped_ratio"] for log in logs) / len(logs)
        assert logged == pytest.approx(cut / len(rows))
    assert any(log["rollouts/truncated_prompts"] > 0 for log in logs)
    for log in logs:
        assert log["rollouts/tokens_per_second"] > 0
        assert log["seconds/generation"] > 0 and log["seconds/scoring"] >= 0 and log["seconds/sync"] > 0
    ask = SamplingParams(max_tokens=4, ignore_eos=True)  # as a `rollout_func` may, for as many prompts as it likes
    [answer] = trainer.vllm_generation.llm.generate([{"prompt_token_ids": [5, 7]}], ask, use_tqdm=False)
    assert len(answer.outputs[0].token_ids) == 4
    release(trainer)  # an engine that is collected later takes the next one's process groups along


def test_the_least_temperature_is_vllms():
    from vllm import SamplingParams

    given = [VLLM_LEAST_TEMPERATURE, VLLM_LEAST_TEMPERATURE / 2]
    assert [SamplingParams(temperature=value).temperature for value in given] == [VLLM_LEAST_TEMPERATURE] * 2


def test_a_shipped_recipe_of_one_domain_trains_with_its_template(tmp_path):
    """The template's stop string is a setting of its own, and the recipe's other domains have no row in the run."""
    directory = make_directory(tmp_path / "miniature")
    config = LlamaConfig.from_pretrained(directory / "policy", head_dim=32)  # vLLM's attention wants no smaller heads
    LlamaForCausalLM(config).save_pretrained(directory / "policy")
    data = Path(__file__).parents[2] / "examples" / "data"
    overrides = [
        f"model={directory / 'policy'}",
        f"domains.math.dataset={data / 'simplerl_level3to5.jsonl'}",
        f"domains.chat.verifier={{reward_model: {{model: '{directory / 'reward_model'}'}}}}",
        "max_prompt_length=1000",
        "trainer={use_cpu: true, bf16: false, max_steps: 1, per_device_train_batch_size: 8, num_generations: 2}",
        "trainer.gradient_accumulation_steps=2",
        "trainer.max_completion_length=4",
        "trainer.vllm_max_model_length=1024",
        "trainer.vllm_tensor_parallel_size=1",
        f"trainer.output_dir={tmp_path / 'out'}",
    ]
    trainer = build_trainer(load_recipe("baselines/single_math", overrides))
    assert trainer._sampling.of("math").stop == ("</response>",)
    trainer.train()
    assert trainer.state.global_step == 1
    release(trainer)
