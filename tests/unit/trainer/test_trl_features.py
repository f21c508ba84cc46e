"""What works in a TRL script keeps working: adapters, evaluation, reward models, async rewards, callbacks."""

import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from mgs_trl import MGSConfig, MGSTrainer
from tests.support.rollouts import ScriptedRollouts, prompts, reward
from tests.unit.trainer.conftest import SETTINGS, gradients


def config(tmp_path, **settings) -> MGSConfig:
    return MGSConfig(output_dir=str(tmp_path), **{**SETTINGS, "learning_rate": 1e-3, **settings})


def test_lora_adapters_get_surgery(tiny_policy, tmp_path):
    seen = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            seen.append(gradients(model))

    trainer = MGSTrainer(
        tiny_policy, reward, config(tmp_path, max_steps=3, beta=0.1), prompts(10), rollout_func=ScriptedRollouts(),
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]), callbacks=[Watch()],
    )  # fmt: skip
    trainer.train()
    assert len(seen) == 3
    assert all("lora" in name for name in seen[0])
    # F9: with B = 0 at the start the gradient of every A is zero, which must not divide by zero.
    assert all(value.isfinite().all() for step in seen for value in step.values())
    report = trainer.state.log_history[0]
    assert 0 < report["domain/math/grad_norm"] < math.inf
    kinds = set(trainer._surgeon.kinds)
    assert kinds == {"attention", "mlp"}


@pytest.mark.parametrize(
    ("adapter", "exclude", "message"),
    [
        (
            None,
            ["mlp", "router", "expert"],
            "has 'router', 'expert', but .* are attention, embedding, (head, )?mlp, norm",
        ),
        (LoraConfig(r=4, target_modules=["q_proj"]), ["mlp"], "has 'mlp', but the kinds .* are attention"),
    ],
)
def test_kinds_that_no_trained_module_has_cannot_be_excluded(tiny_policy, tmp_path, adapter, exclude, message):
    args = config(tmp_path, surgery_exclude=exclude)
    trainer = MGSTrainer(tiny_policy, reward, args, prompts(10), rollout_func=ScriptedRollouts(), peft_config=adapter)
    with pytest.raises(ValueError, match=rf"^surgery_exclude {message}\.$"):
        trainer.train()


def test_evaluation_logs_each_domain(tiny_policy, tmp_path):
    data = prompts(10)
    args = config(tmp_path, max_steps=2, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=4)
    held_out = data.select([0, 1, 10, 11, 12, 20])
    trainer = MGSTrainer(tiny_policy, reward, args, data, eval_dataset=held_out, rollout_func=ScriptedRollouts())
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "eval_reward" in entry]
    assert len(logs) == 2
    means = [logs[0][f"eval_domain/{d}/reward"] for d in ("chat", "instruction_following", "math")]
    # 8, 12 and 4 completions: the overall mean is that of rows, not of batches.
    rows = [2 * 4, 3 * 4, 1 * 4]
    weighted = sum(m * n for m, n in zip(means, rows, strict=True)) / sum(rows)
    assert weighted == pytest.approx(logs[0]["eval_reward"], rel=1e-5)


def test_rollouts_after_an_evaluation_come_from_the_weights_that_are_trained(tiny_policy, tmp_path):
    """A schedule-free optimizer swaps the model's weights by `train()` and `eval()`."""

    class Switching(torch.optim.SGD):
        mode = "eval"

        def train(self):
            self.mode = "train"

        def eval(self):
            self.mode = "eval"

    class Watching(ScriptedRollouts):
        def __call__(self, prompts, trainer):
            seen.append((trainer.model.training, optimizer.mode))
            return super().__call__(prompts, trainer)

    seen: list[tuple[bool, str]] = []
    model = AutoModelForCausalLM.from_pretrained(tiny_policy)
    optimizer = Switching(model.parameters(), lr=1e-3)
    args = config(tmp_path, max_steps=2, eval_on_start=True, eval_strategy="steps", eval_steps=1)
    data = prompts(10)
    trainer = MGSTrainer(
        model, reward, args, data, eval_dataset=data.select([0]), rollout_func=Watching(), optimizers=(optimizer, None),
        processing_class=AutoTokenizer.from_pretrained(tiny_policy, padding_side="left"),
    )  # fmt: skip
    trainer.train()
    assert seen == [(False, "eval"), (True, "train")] * 2 + [(False, "eval")]


def test_logged_domain_rewards_are_means_over_rows(tiny_policy, tmp_path):
    """D7: what is logged is what was scored."""
    scored: dict[str, list[float]] = {}

    def remember(prompts, completions, completion_ids, domain, **kwargs):
        values = reward(prompts, completions, completion_ids)
        for name, value in zip(domain, values, strict=True):
            scored.setdefault(name, []).append(value)
        return values

    trainer = MGSTrainer(
        tiny_policy,
        remember,
        config(tmp_path, max_steps=2, logging_steps=2),
        prompts(10),
        rollout_func=ScriptedRollouts(),
    )
    trainer.train()
    log = trainer.state.log_history[0]
    for name, values in scored.items():
        values = torch.tensor(values, dtype=torch.float64)
        assert log[f"domain/{name}/reward"] == pytest.approx(values.mean().item(), rel=1e-5)
        assert log[f"domain/{name}/reward_std"] == pytest.approx(values.std().item(), rel=1e-5)


def test_reward_model_and_function_side_by_side_with_weights(tiny_policy, tmp_path):
    """A model id as reward, as TRL takes it, and a function that skips rows (R4)."""
    folder = tmp_path / "reward-model"
    AutoModelForSequenceClassification.from_pretrained(tiny_policy, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_policy).save_pretrained(folder)

    def only_math(prompts, completions, completion_ids, domain, **kwargs):
        values = reward(prompts, completions, completion_ids)
        return [value if name == "math" else None for value, name in zip(values, domain, strict=True)]

    args = config(tmp_path / "run", reward_weights=[0.5, 2.0])
    trainer = MGSTrainer(tiny_policy, [str(folder), only_math], args, prompts(10), rollout_func=ScriptedRollouts())
    trainer.train()
    log = trainer.state.log_history[0]
    assert math.isfinite(log["rewards/only_math/mean"])
    assert math.isfinite(log["domain/chat/reward"])


def test_model_instance_async_reward_and_real_generation(tiny_policy, tmp_path):
    async def slow(completions, **kwargs):
        return [float(len(text)) for text in completions]

    model = AutoModelForCausalLM.from_pretrained(tiny_policy)
    trainer = MGSTrainer(
        model, slow, config(tmp_path, max_completion_length=6), prompts(10),
        processing_class=AutoTokenizer.from_pretrained(tiny_policy, padding_side="left"),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 1


def test_all_equal_rewards_are_visible_and_harmless(tiny_policy, tmp_path):
    """R7: a domain without signal shows, and only its KL is left."""

    def constant_chat(prompts, completions, completion_ids, domain, **kwargs):
        values = reward(prompts, completions, completion_ids)
        return [1.0 if name == "chat" else value for value, name in zip(values, domain, strict=True)]

    trainer = MGSTrainer(tiny_policy, constant_chat, config(tmp_path), prompts(10), rollout_func=ScriptedRollouts())
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["domain/chat/frac_zero_std"] == 1.0
    assert log["domain/math/frac_zero_std"] == 0.0
    assert log["domain/chat/grad_norm"] == 0.0
    assert log["domain/math/grad_norm"] > 0.0


def test_infinite_rewards_are_left_out_of_their_group_and_counted(tiny_policy, tmp_path):
    """R6: TRL alone would zero the whole group's advantages without a word."""

    def infinite_chat(prompts, completions, completion_ids, domain, **kwargs):
        values = reward(prompts, completions, completion_ids)
        return [
            math.inf if name == "chat" and i % 4 == 0 else v
            for i, (v, name) in enumerate(zip(values, domain, strict=True))
        ]

    trainer = MGSTrainer(tiny_policy, infinite_chat, config(tmp_path), prompts(10), rollout_func=ScriptedRollouts())
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["domain/chat/infinite_ratio"] == pytest.approx(0.25)
    assert log["domain/math/infinite_ratio"] == 0.0
    assert math.isfinite(log["domain/chat/reward"])
    assert log["domain/chat/grad_norm"] > 0  # the other three of each group still teach


def test_non_finite_gradient_of_a_domain_is_dropped_and_counted(tiny_policy, tmp_path):
    """F9: neither spreads nor passes silently."""

    class Broken(MGSTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            return loss * torch.nan if getattr(inputs, "domain", None) == 0 else loss

    trainer = Broken(tiny_policy, reward, config(tmp_path, max_steps=2), prompts(10), rollout_func=ScriptedRollouts())
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["surgery/dropped/chat"] == 1.0
    assert log["surgery/dropped/math"] == 0.0
    assert all(p.isfinite().all() for p in trainer.model.parameters())
    assert any(not torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())


@pytest.mark.parametrize(
    "extra", [{"scale_rewards": "batch"}, {"multi_objective_aggregation": "normalize_then_sum"}], ids=str
)
def test_advantages_never_mix_domains(tiny_policy, tmp_path, extra):
    """A domain's rewards scaled by 1000 change nothing in the other domains' gradients."""

    def run(scale, folder):
        def scaled(prompts, completions, completion_ids, domain, **kwargs):
            values = reward(prompts, completions, completion_ids)
            return [scale * v if name == "chat" else v for v, name in zip(values, domain, strict=True)]

        args = config(tmp_path / folder, surgery="observe", **extra)
        trainer = MGSTrainer(tiny_policy, scaled, args, prompts(10), rollout_func=ScriptedRollouts())
        trainer.train()
        return trainer.state.log_history[0]

    small, large = run(1.0, "small"), run(1000.0, "large")
    for name in ("instruction_following", "math"):
        assert small[f"domain/{name}/grad_norm"] == large[f"domain/{name}/grad_norm"]
    # Scale-free in its own domain too, up to the 1e-4 in the denominator.
    assert small["domain/chat/grad_norm"] == pytest.approx(large["domain/chat/grad_norm"], rel=2e-3)


@pytest.mark.parametrize(
    "extra", [{"scale_rewards": "batch"}, {"multi_objective_aggregation": "normalize_then_sum"}], ids=str
)
def test_the_share_without_spread_is_that_of_rows_whose_domain_has_none(tiny_policy, tmp_path, extra):
    """TRL's `frac_reward_zero_std`: of 6 prompts to a window the two of chat; over the mix no row would be without."""

    def constant_chat(prompts, completions, completion_ids, domain, **kwargs):
        values = reward(prompts, completions, completion_ids)
        return [1.0 if name == "chat" else value for value, name in zip(values, domain, strict=True)]

    args = config(tmp_path, **extra)
    trainer = MGSTrainer(tiny_policy, constant_chat, args, prompts(10), rollout_func=ScriptedRollouts())
    trainer.train()
    assert trainer.state.log_history[0]["frac_reward_zero_std"] == pytest.approx(1 / 3)


def test_domain_column_of_another_name_and_removed_columns(tiny_policy, tmp_path):
    data = prompts(10).rename_column("domain", "task")
    args = config(tmp_path, domain_column="task")
    trainer = MGSTrainer(tiny_policy, reward, args, data, rollout_func=ScriptedRollouts())
    trainer.train()
    assert "domain/math/reward" in trainer.state.log_history[0]
    assert Path(tmp_path / "conflicts.jsonl").exists()
