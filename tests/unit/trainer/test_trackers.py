"""Trackers get what metrics.jsonl has, under the names of docs/metrics.md; what surgery costs, against a count."""

import json
import math
import re
import socket
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.runs.trackers import open_trackers, tracked
from tests.support.rollouts import DOMAINS, prompts, reward
from tests.support.trackers import tensorboard_scalars, wandb_runs

from .conftest import SETTINGS

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
OURS = re.compile(r"(domain|conflict|surgery|seconds|rollouts|ranks)/")


@pytest.fixture
def train(tiny_policy, tmp_path):
    """Two steps of rollouts by transformers; returns the lines of metrics.jsonl, and the trainer."""

    def run(tracker, **settings):
        values = {**SETTINGS, "max_steps": 2, "max_completion_length": 4, "beta": 0.1, "report_to": tracker, **settings}
        args = MGSConfig(output_dir=str(tmp_path / "run"), **values)
        trainer = MGSTrainer(tiny_policy, reward, args, prompts(4), eval_dataset=prompts(2))
        trainer.train()
        path = tmp_path / "run" / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()], trainer

    return run


def documented() -> set[str]:
    """The names in the first column of the table in docs/metrics.md, for three domains on a CPU."""
    names = set()
    for cell in re.findall(r"^\| (`.+?) \|", DOCS.read_text(), flags=re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        names |= {first, *(other.replace("...", first.rpartition("/")[0]) for other in others)}
    filled = set()
    for name in names:
        by_domain = [name.replace("{d}", d) for d in DOMAINS]
        pairs = [name.replace("{a}~{b}", f"{a}~{b}") for a in DOMAINS for b in DOMAINS if a < b]
        filled |= set(by_domain if "{d}" in name else pairs if "{a}" in name else [name.replace("{place}", "cpu")])
    return filled


def assert_same(lines: list[dict], scalars: dict[str, dict[int, float]]) -> None:
    """Every number of metrics.jsonl that is ours is in the tracker, with `train/` or `eval/` before its name."""
    compared = 0
    for line in lines:
        for name, value in line.items():
            if OURS.match(name.removeprefix("eval_")):
                tag = name.replace("eval_", "eval/", 1) if name.startswith("eval_") else f"train/{name}"
                assert scalars[tag][line["step"]] == pytest.approx(value, rel=1e-6, nan_ok=True), name
                compared += 1
    assert compared > 100


def test_documented_metrics_are_logged_and_logged_ones_documented(train):
    lines, _ = train([])
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 2
    for line in steps:
        assert {name for name in line if OURS.match(name)} == {name for name in documented() if OURS.match(name)}


def test_tensorboard_gets_them_all(train, tmp_path):
    pytest.importorskip("tensorboard")
    lines, _ = train(["tensorboard"], eval_strategy="steps", eval_steps=1)
    assert_same(lines, tensorboard_scalars(tmp_path / "run"))


def test_trackio_gets_them_all_without_network(train, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is absent: it would hold pillow back, so `dev` leaves it out")
    connect = socket.socket.connect

    def only_here(self, address):
        assert address[0] in ("127.0.0.1", "localhost", "::1"), f"trackio wanted to reach {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)
    lines, _ = train(["trackio"], trackio_static_space_id=False, project="mgs", run_name="run", eval_strategy="steps",
                     eval_steps=1)  # fmt: skip
    from trackio.sqlite_storage import SQLiteStorage

    scalars: dict[str, dict[int, float]] = {}
    for entry in SQLiteStorage.get_logs("mgs", "run"):
        for name, value in entry.items() if "train/global_step" in entry else ():
            scalars.setdefault(name, {})[entry["train/global_step"]] = value
    assert_same(lines, scalars)


def test_wandb_gets_them_all_without_network(train, tmp_path, offline_wandb):
    """Read from the file that an offline run leaves."""
    lines, _ = train(["wandb"], run_name="mine", eval_strategy="steps", eval_steps=1)
    offline_wandb.finish()
    assert_same(lines, wandb_runs(tmp_path)["mine"])


class Events(TrainerCallback):
    """What a tracker hears, in order."""

    def __init__(self):
        self.heard = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.heard.append("begin")

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.heard.append("evaluation" if any(name.startswith("eval_") for name in logs) else "log")

    def on_train_end(self, args, state, control, **kwargs):
        self.heard.append("end")


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("tool", ["MLflow", "Trackio"])
def test_a_tracker_that_ends_with_the_training_ends_after_its_evaluation(
    tiny_policy, tmp_path, monkeypatch, tool, trains
):
    """Trackio would stop an evaluation that came after its end or before its beginning, MLflow make a run of it."""
    monkeypatch.setattr(f"transformers.integrations.integration_utils.{tool}Callback", Events)
    events = Events()
    args = MGSConfig(str(tmp_path), **{**SETTINGS, "max_completion_length": 4})
    trainer = MGSTrainer(tiny_policy, reward, args, prompts(4), eval_dataset=prompts(2), callbacks=[events])
    with tracked(trainer):
        if trains:
            trainer.train()
        else:
            open_trackers(trainer)
        trainer.evaluate()
    training = ["log", "log"] if trains else []  # a step, and the whole
    assert events.heard == ["begin", *training, "evaluation", "end"]


@pytest.mark.parametrize("surgery", ["pcgrad", "observe"])
@pytest.mark.parametrize("dtype, size", [("float32", 4), ("bfloat16", 2)])
def test_memory_is_one_copy_less_than_domains(train, surgery, dtype, size):
    lines, trainer = train([], surgery=surgery, surgery_dtype=dtype)
    expected = (len(DOMAINS) - 1) * sum(p.numel() for p in trainer.model.parameters()) * size / 2**30
    logged = [line["surgery/memory_gib/cpu"] for line in lines if "loss" in line]
    assert logged == [pytest.approx(expected, rel=1e-12)] * 2


def test_seconds_are_parts_of_each_other(train):
    lines, _ = train([], logging_steps=1)
    for line in lines:
        if "loss" in line:
            rollouts = line["seconds/generation"] + line["seconds/scoring"]
            assert 0 < line["surgery/seconds"] < line["seconds/training"] < line["step_time"]
            assert line["seconds/training"] + rollouts < line["step_time"]


def test_a_mixture_without_surgery_keeps_no_copies(train):
    lines, _ = train([], surgery="none")
    steps = [line for line in lines if "loss" in line]
    assert not [name for line in steps for name in line if name.startswith("surgery/")]
    assert all(math.isfinite(line["seconds/training"]) for line in steps)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_time_on_a_gpu_is_that_of_its_kernels():
    from mgs_trl.engines.domain_gradients import _Stopwatch

    watch, a = _Stopwatch(torch.device("cuda")), torch.randn(4096, 4096, device="cuda")
    with watch.span():
        torch.cuda._sleep(10**9)  # cycles: some half second in which the host goes on
        a @ a
    assert watch.read() == 0.0
    torch.cuda.synchronize()
    assert 0.1 < watch.read() < 10
    assert watch.read() == 0.0
