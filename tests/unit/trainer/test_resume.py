"""Interrupted and resumed: the next window is the one that would have come (S1, S6, S7)."""

import json
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerCallback

from mgs_trl import MGSConfig, MGSTrainer
from tests.support.rollouts import DOMAINS, ScriptedRollouts, prompts, reward
from tests.unit.trainer.conftest import SETTINGS as UNIT


class Seen(ScriptedRollouts):
    """Remembers the prompts of every generation batch; completions depend on the prompt alone."""

    def __init__(self):
        super().__init__()
        self.batches: list[list[str]] = []

    def __call__(self, prompts, trainer):
        self.batches.append(list(prompts))
        self.seen.clear()
        return super().__call__(prompts, trainer)


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_training_stop = True


def stopping(step):
    class Stopping(MGSTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.add_callback(StopAt(step))

    return Stopping


SETTINGS = {"learning_rate": 1e-3, "max_steps": 6, "save_strategy": "steps", "save_steps": 1, "max_grad_norm": 1.0}


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
@pytest.mark.parametrize("extra", [{}, {"steps_per_generation": 12}, {"num_iterations": 2}], ids=str)
def test_resumed_run_equals_the_uninterrupted_one(ours, tmp_path, extra, stop):
    data = prompts(4)  # 12 prompts, 6 per window: epochs and domains wrap within the run
    settings = {**SETTINGS, "gramian_ema": 0.9, "balance": "domain", **extra}
    whole_seen, first_seen, rest_seen = Seen(), Seen(), Seen()
    whole = ours(dataset=data, rollouts=whole_seen, **settings)
    ours(dataset=data, rollouts=first_seen, trainer_class=stopping(stop), **settings)
    checkpoint = tmp_path / "ours" / f"checkpoint-{stop}"
    assert checkpoint.is_dir()
    rest = ours(dataset=data, rollouts=rest_seen, resume=str(checkpoint), **settings)
    assert rest.trainer.state.global_step == 6
    steps_per_batch = extra.get("num_iterations", 1) * extra.get("steps_per_generation", 6) // 6
    # A generation batch that was in use when the run stopped is generated again, from the same prompts.
    assert rest_seen.batches == whole_seen.batches[stop // steps_per_batch :]
    if "num_iterations" not in extra and "steps_per_generation" not in extra:
        for name, value in whole.parameters().items():
            assert torch.allclose(value, rest.parameters()[name], rtol=1e-6, atol=1e-8), name


def test_changed_quotas_are_refused(ours, tmp_path):
    settings = {**SETTINGS, "max_steps": 2}
    ours(**settings)
    with pytest.raises(ValueError, match="prompts per window"):
        ours(
            resume=str(tmp_path / "ours" / "checkpoint-1"),
            mixture={"chat": 1, "math": 3, "instruction_following": 2},
            **settings,
        )


def test_conflict_log_of_a_resumed_run_has_every_step_once(ours, tmp_path):
    import json

    settings = {**SETTINGS, "max_steps": 4, "conflict_log_steps": 1}
    ours(**settings)
    log = Path(tmp_path / "ours" / "conflicts.jsonl")
    log.write_text(log.read_text()[:-40])  # a crash in the middle of a line
    ours(resume=str(tmp_path / "ours" / "checkpoint-2"), **settings)
    lines = [json.loads(line) for line in Path(tmp_path / "ours" / "conflicts.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["domains"] == ["chat", "instruction_following", "math"]


SMOOTHED = {**SETTINGS, "max_steps": 3, "gramian_ema": 0.9}


def test_other_granularity_is_refused_before_training(ours, tmp_path):
    ours(granularity="global", **SMOOTHED)
    seen = Seen()
    with pytest.raises(ValueError, match=r"of 1 modules \(global, \.\.\.\).*resume with the granularity"):
        ours(granularity="block", rollouts=seen, resume=str(tmp_path / "ours" / "checkpoint-1"), **SMOOTHED)
    assert not seen.batches


def test_changed_smoothing_takes_effect(ours, tmp_path):
    ours(**SMOOTHED)
    run = ours(resume=str(tmp_path / "ours" / "checkpoint-1"), **{**SMOOTHED, "gramian_ema": 0.5})
    assert run.trainer._surgeon.smoother.beta == 0.5


def test_resumed_in_the_same_process_equals_the_first_time(ours, tmp_path):
    """The smoothed Gramian and the place in the data are the checkpoint's, not those that the first call ended with."""
    seen = Seen()
    run = ours(rollouts=seen, **SMOOTHED)
    first, batches = run.parameters(), list(seen.batches)
    mass = run.trainer._surgeon.smoother.mass.clone()
    run.trainer.train(resume_from_checkpoint=str(tmp_path / "ours" / "checkpoint-1"))
    assert seen.batches == batches + batches[1:]
    assert torch.equal(run.trainer._surgeon.smoother.mass, mass)
    for name, value in run.parameters().items():
        assert torch.allclose(value, first[name], rtol=1e-6, atol=1e-8), name
    for log, key in (("conflicts.jsonl", "gramian"), ("metrics.jsonl", "loss")):
        entries = map(json.loads, (tmp_path / "ours" / log).read_text().splitlines())
        assert [entry["step"] for entry in entries if key in entry] == [1, 2, 3], log


def test_what_is_uploaded_has_the_smoothed_gramian(tiny_policy, tmp_path, monkeypatch):
    """A checkpoint is pushed to the hub by the call that saves it."""
    pushed = []

    def push(self, checkpoint_folder):
        pushed.append({path.name for path in Path(checkpoint_folder).iterdir()})

    monkeypatch.setattr(Trainer, "_push_from_checkpoint", push)
    monkeypatch.setattr(Trainer, "init_hf_repo", lambda *args, **kwargs: None)
    args = MGSConfig(**{**UNIT, **SETTINGS, "max_steps": 1, "output_dir": str(tmp_path), "hub_model_id": "a/b"})
    trainer = MGSTrainer(tiny_policy, reward, args, prompts(4), rollout_func=ScriptedRollouts())
    args.push_to_hub = True
    trainer.train()
    assert len(pushed) == 1
    assert {"surgery_state.pt", "run_id", "model.safetensors"} <= pushed[0]


@pytest.mark.parametrize("domains", [1, 3])
def test_a_finished_run_takes_no_step_more(ours, tmp_path, domains):
    """Its last evaluation may have failed; the epoch is not at its end."""
    data = prompts(24, DOMAINS[:domains])
    settings = {**SETTINGS, "max_steps": 1}
    first = ours(dataset=data, **settings)
    again = ours(dataset=data, resume=str(tmp_path / "ours" / "checkpoint-1"), **settings)
    assert again.trainer.state.global_step == 1 and again.gradients == []
    for name, value in first.parameters().items():
        assert torch.equal(value, again.parameters()[name]), name


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_one_domain_goes_on_with_the_order_of_its_epoch(ours, tmp_path, stop):
    data = prompts(12, DOMAINS[:1])  # two steps an epoch
    whole, first, rest = Seen(), Seen(), Seen()
    ours(dataset=data, rollouts=whole, **SETTINGS)
    ours(dataset=data, rollouts=first, trainer_class=stopping(stop), **SETTINGS)
    ours(dataset=data, rollouts=rest, resume=str(tmp_path / "ours" / f"checkpoint-{stop}"), **SETTINGS)
    assert len(whole.batches) == 6 and whole.batches[:2] != whole.batches[2:4]
    assert rest.batches == whole.batches[stop:]
