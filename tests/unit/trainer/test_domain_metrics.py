"""Entropy and KL of each domain: logged whenever TRL's are, and of one domain too."""

import pytest

from tests.support.rollouts import prompts

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


def test_without_a_domain_column_there_are_none(ours):
    run = ours(dataset=prompts(24, domains=("math",)).remove_columns("domain"))
    assert not [name for log in with_entropy(run) for name in log if name.startswith("domain/")]
