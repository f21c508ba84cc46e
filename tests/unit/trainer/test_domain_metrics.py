"""Entropy and KL of each domain: logged whenever TRL's are, and of one domain too. Held-out rewards: of every row."""

import math
from itertools import chain

import pytest
from transformers import TrainerCallback

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.training.metrics import rows_met_first
from tests.support.rollouts import ScriptedRollouts, prompts
from tests.unit.trainer.conftest import SETTINGS

NAMES = ("entropy", "kl")


def with_entropy(run) -> list[dict]:
    return [entry for entry in run.trainer.state.log_history if "entropy" in entry]


def test_logged_at_the_end_of_epochs(ours):
    # 12 prompts, 6 to a window: two steps to an epoch, three blocks of as many rows.
    run = ours(dataset=prompts(4), max_steps=4, logging_strategy="epoch", beta=0.1)
    logs = with_entropy(run)
    assert len(logs) == 2
    for log in logs:
        for name in NAMES:
            values = [log[f"domain/{domain}/{name}"] for domain in run.trainer.mix.domains]
            assert min(values) <= log[name] * 1.1 and max(values) >= log[name] * 0.9


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_of_one_domain_they_are_those_of_the_run(ours, beta):
    run = ours(dataset=prompts(24, domains=("math",)), max_steps=3, beta=beta)
    logs = with_entropy(run)
    assert len(logs) == 3
    for log in logs:
        assert log["domain/math/entropy"] == log["entropy"]
        assert ("kl" in log) == (beta > 0) and log.get("domain/math/kl") == log.get("kl")
        assert None not in log.values()


@pytest.mark.parametrize("accumulation, batch", [(1, 24), (3, 8)])
def test_those_of_the_run_are_means_over_tokens(ours, reference, accumulation, batch):
    """As GRPOTrainer's of one micro-batch, whatever blocks ours consists of and however long their rows are."""
    settings = {"beta": 0.1, "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    [log] = with_entropy(ours(**settings))
    [expected] = with_entropy(
        reference(**{**settings, "per_device_train_batch_size": 24, "gradient_accumulation_steps": 1})
    )
    for name in NAMES:
        assert log[name] == pytest.approx(expected[name], rel=1e-5)


WHOLE = {"per_device_train_batch_size": 24, "gradient_accumulation_steps": 1, "beta": 0.1}


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_kl_of_a_second_iteration_is_grpos(ours, reference, level, corrected):
    """TRL multiplies the estimate by the importance ratio, which is no longer one."""
    settings = {
        **WHOLE, "max_steps": 2, "num_iterations": 2, "importance_sampling_level": level,
        "use_bias_correction_kl": corrected, "optim": "sgd", "learning_rate": 1.0,
    }  # fmt: skip
    log, expected = with_entropy(ours(surgery="none", **settings))[1], with_entropy(reference(**settings))[1]
    assert log["kl"] == pytest.approx(expected["kl"], rel=1e-4)


def test_steps_after_the_last_log_are_logged_at_the_end(ours, reference):
    settings = {**WHOLE, "max_steps": 3, "logging_steps": 2, "learning_rate": 1e-3}
    run = ours(dataset=prompts(12), surgery="none", **settings)
    log, expected = with_entropy(run)[1], with_entropy(reference(dataset=prompts(12), **settings))[1]
    assert "train_loss" in log and log["entropy"] == pytest.approx(expected["entropy"], rel=1e-5)
    assert all(math.isfinite(log[f"domain/{domain}/{name}"]) for domain in run.trainer.mix.domains for name in NAMES)


def test_logged_whichever_callback_asks_for_it(tiny_policy, tmp_path):
    class Late(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_log = state.global_step == 2

    args = MGSConfig(output_dir=str(tmp_path), **{**SETTINGS, "max_steps": 3, "logging_steps": 100})
    trainer = MGSTrainer(tiny_policy, number, args, prompts(10), rollout_func=ScriptedRollouts())
    trainer.add_callback(Late())
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "entropy" in entry]
    assert len(logs) == 2  # of two steps, and of the third at the end
    assert all(f"domain/{domain}/entropy" in log for log in logs for domain in trainer.mix.domains)


def test_without_a_domain_column_there_are_none(ours):
    run = ours(dataset=prompts(24, domains=("math",)).remove_columns("domain"))
    assert not [name for log in with_entropy(run) for name in log if name.startswith("domain/")]


def number(number, **columns) -> list[float]:
    """The reward of a prompt is its number, whatever is written: math has 2000 and more, chat less than 1000."""
    return [math.inf if value == 2001 else float(value) for value in number]


def test_evaluation_counts_the_domains_it_knows_among_others(tiny_policy, tmp_path):
    """Neither training nor evaluation had the others; batches of two prompts hold both kinds."""
    args = MGSConfig(output_dir=str(tmp_path), **{**SETTINGS, "per_device_eval_batch_size": 8})
    trainer = MGSTrainer(tiny_policy, number, args, prompts(10), rollout_func=ScriptedRollouts())
    names = {0: "chat", 1: "poetry", 2: "chat", 20: "math", 21: "math", 10: "poetry", 11: None}
    rows = prompts(10).select(list(names)).remove_columns("domain").add_column("domain", list(names.values()))
    logs = trainer.evaluate(rows)
    assert logs["eval_domain/chat/reward"] == (0 + 2) / 2
    assert logs["eval_domain/math/reward"] == 2000
    assert logs["eval_domain/math/infinite_ratio"] == logs["eval_domain/math/unscored_ratio"] == 0.5
    assert logs["eval_domain/chat/frac_zero_std"] == 1.0
    assert not [name for name in logs if "poetry" in name or "instruction_following" in name]
    assert trainer.evaluate(rows.select([1, 5]))["eval_loss"] is not None  # none that is known


def test_an_infinite_reward_of_an_unknown_domain_stays_in_trls_mean(tiny_policy, tmp_path):
    """Where no domain's `infinite_ratio` could tell of it, it is not taken away."""

    def reward(number, **columns):
        return [math.inf if value == 1 else 0.0 for value in number]

    args = MGSConfig(output_dir=str(tmp_path), **{**SETTINGS, "per_device_eval_batch_size": 8})
    trainer = MGSTrainer(tiny_policy, reward, args, prompts(10), rollout_func=ScriptedRollouts())
    rows = prompts(10).select([0, 1]).remove_columns("domain")
    logs = trainer.evaluate(rows.add_column("domain", ["chat", "poetry"]))
    assert logs["eval_rewards/reward/mean"] == math.inf and logs["eval_domain/chat/infinite_ratio"] == 0.0
    logs = trainer.evaluate(rows.add_column("domain", ["chat", "chat"]))
    assert logs["eval_rewards/reward/mean"] == 0.0 and logs["eval_domain/chat/infinite_ratio"] == 0.5


@pytest.mark.parametrize("prompts_held_out", range(1, 14))
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_rows_that_fill_up_the_last_round_are_the_last(prompts_held_out, ranks):
    """Against what accelerate gives the ranks."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler
    from trl.trainer.utils import RepeatSampler

    def batches() -> BatchSampler:
        return BatchSampler(RepeatSampler(range(prompts_held_out), 2, seed=7), 4, drop_last=False)

    whole = list(RepeatSampler(range(prompts_held_out), 2, seed=7))
    parts = [list(BatchSamplerShard(batches(), ranks, rank)) for rank in range(ranks)]
    rounds = [[*chain(*part)] for part in zip(*parts, strict=True)]
    if ranks > 1:  # one process has nothing to fill up, and no shards
        rounds[-1] = rounds[-1][: rows_met_first(len(whole), len(rounds[-1]))]
        assert [*chain(*rounds)] == whole


def test_streamed_rows_are_counted_by_the_domains_that_are_trained(tiny_policy, tmp_path):
    """As GRPOTrainer, ours evaluates a stream; its domains are not known before it is read."""
    args = MGSConfig(output_dir=str(tmp_path), **{**SETTINGS, "per_device_eval_batch_size": 8})
    stream = prompts(10).select([0, 1, 20, 22]).to_iterable_dataset()
    trainer = MGSTrainer(tiny_policy, number, args, prompts(10), stream, rollout_func=ScriptedRollouts())
    logs = trainer.evaluate()
    assert logs["eval_domain/chat/reward"] == (0 + 1) / 2
    assert logs["eval_domain/math/reward"] == (2000 + 2002) / 2
