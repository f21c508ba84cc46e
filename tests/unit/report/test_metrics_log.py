"""metrics.jsonl and run.json: everything that was logged, once for each step, also after a crash and a resume."""

import json

from transformers import TrainerControl, TrainerState, TrainingArguments

from mgs_trl.records.checkpoints import read_run_id
from mgs_trl.records.metrics_log import MetricsLog


def log(callback, args, step, **values):
    callback.on_log(args, TrainerState(global_step=step), TrainerControl(), logs=values)


def begin(directory, step):
    callback, args = MetricsLog(directory), TrainingArguments(str(directory), hub_token="secret", use_cpu=True)
    callback.on_train_begin(args, TrainerState(global_step=step), TrainerControl())
    return callback, args


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_a_new_run_starts_anew_and_a_resumed_one_goes_on(tmp_path):
    callback, args = begin(tmp_path, 0)
    for step in range(1, 5):
        log(callback, args, step, loss=step / 2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # a crash
    callback, args = begin(tmp_path, 2)
    log(callback, args, 3, loss=9.0)
    assert lines(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 9.0}]
    launches = json.loads((tmp_path / "run.json").read_text())["launches"]
    assert [launch["from_step"] for launch in launches] == [0, 2]
    assert "secret" not in (tmp_path / "run.json").read_text()
    assert {"torch", "trl", "transformers", "mgs_trl"} <= set(launches[0]["versions"])
    begin(tmp_path, 0)
    assert lines(tmp_path) == []
    assert len(json.loads((tmp_path / "run.json").read_text())["launches"]) == 1


def test_evaluation_before_training_is_kept(tmp_path):
    callback, args = MetricsLog(tmp_path / "new"), TrainingArguments(str(tmp_path), use_cpu=True)
    log(callback, args, 0, eval_reward=0.25)
    callback.on_train_begin(args, TrainerState(), TrainerControl())
    log(callback, args, 1, loss=1.0)
    assert lines(tmp_path / "new") == [{"step": 0, "eval_reward": 0.25}, {"step": 1, "loss": 1.0}]


def test_evaluation_before_training_is_kept_where_another_run_was(tmp_path):
    for count in (1, 3):
        callback, args = begin(tmp_path, 0)
        for step in range(1, 1 + count):
            log(callback, args, step, loss=1.0)
        callback = MetricsLog(tmp_path)
        log(callback, args, 0, eval_reward=0.25)
        log(callback, args, 0, eval_reward=0.5)
        assert [entry["step"] for entry in lines(tmp_path)] == list(range(1, 1 + count))
        callback.on_train_begin(args, TrainerState(), TrainerControl())
        assert lines(tmp_path) == [{"step": 0, "eval_reward": 0.25}, {"step": 0, "eval_reward": 0.5}]


def test_a_trainer_that_is_resumed_in_its_process_does_steps_again(tmp_path):
    callback, args = begin(tmp_path, 0)
    for step in range(1, 4):
        log(callback, args, step, loss=1.0)
    callback.on_train_begin(args, TrainerState(global_step=1), TrainerControl())
    log(callback, args, 2, loss=2.0)
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]


def test_evaluating_in_the_directory_of_another_run_leaves_its_log(tmp_path):
    callback, args = begin(tmp_path, 0)
    log(callback, args, 1, loss=1.0)
    log(callback, args, 2, loss=2.0)
    before = lines(tmp_path)
    evaluation = MetricsLog(tmp_path)
    log(evaluation, args, 0, eval_reward=0.5)
    assert lines(tmp_path) == before
    evaluation.on_train_begin(args, TrainerState(global_step=1), TrainerControl())  # it is resumed after all
    assert lines(tmp_path) == before[:1]


def test_a_new_run_has_a_name_of_its_own_and_no_conflicts_of_another(tmp_path):
    begin(tmp_path, 0)
    first = read_run_id(tmp_path)
    (tmp_path / "conflicts.jsonl").write_text("of this run")
    begin(tmp_path, 3)
    assert read_run_id(tmp_path) == first is not None
    assert (tmp_path / "conflicts.jsonl").exists()
    begin(tmp_path, 0)
    assert read_run_id(tmp_path) != first
    assert not (tmp_path / "conflicts.jsonl").exists()


def test_planned_steps_are_those_of_the_trainer(tmp_path):
    """Arguments of a run that counts epochs say -1."""
    callback, args = MetricsLog(tmp_path), TrainingArguments(str(tmp_path), use_cpu=True)
    callback.on_train_begin(args, TrainerState(max_steps=40), TrainerControl())
    assert json.loads((tmp_path / "run.json").read_text())["launches"][0]["max_steps"] == 40


def test_other_ranks_write_nothing(tmp_path):
    callback, args = MetricsLog(tmp_path), TrainingArguments(str(tmp_path), use_cpu=True)
    state = TrainerState(is_world_process_zero=False)
    callback.on_train_begin(args, state, TrainerControl())
    callback.on_log(args, state, TrainerControl(), logs={"loss": 1.0})
    assert not list(tmp_path.iterdir())
