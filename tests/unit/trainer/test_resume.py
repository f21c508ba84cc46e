"""Interrupted and resumed: the next window is the one that would have come (S1, S6, S7)."""

from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from mgs_trl import MGSTrainer
from tests.support.rollouts import ScriptedRollouts, prompts


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
