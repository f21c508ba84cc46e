"""Trackers get what metrics.jsonl has, under the names of docs/metrics.md; what surgery costs, against a count."""

import json
import math
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mgs_trl import MGSConfig, MGSTrainer
from tests.support.rollouts import DOMAINS, prompts, reward

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


def tensorboard_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """By tag the value at each step, read with TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, dict[int, float]] = {}
    for path in folder.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, {}).update({e.step: e.value for e in events.Scalars(tag)})
    return found


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Records of a file in LevelDB's log format, in which wandb keeps a run, behind a header of seven bytes."""
    place, record = 7, b""
    while place < len(data):
        if (left := 32768 - place % 32768) < 7:  # a record's header is never split between blocks
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


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


def test_wandb_gets_them_all_without_network(train, tmp_path, monkeypatch):
    """Read from the file that an offline run leaves."""
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    lines, _ = train(["wandb"], eval_strategy="steps", eval_steps=1)
    wandb.finish()
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records: list[Record] = []
    while not any(record.HasField("exit") for record in records):  # wandb's own process writes on for a moment
        records = [Record.FromString(data) for data in leveldb_records(path.read_bytes())]
    scalars: dict[str, dict[int, float]] = {}
    for items in (record.history.item for record in records):
        entry = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
        for name, value in entry.items():
            scalars.setdefault(name, {})[entry["train/global_step"]] = value
    assert_same(lines, scalars)


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
