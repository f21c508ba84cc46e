"""Strategies that are several runs: a sequence's stages are marked, a merged policy has no training to show."""

import json
import re

import pytest

from mgs_trl.report import write_report

from .logs import embedded, metric_lines, write_lines, write_run


@pytest.fixture
def sequence(tmp_path):
    """10 steps of math, then 20 of chat: as `mgs_trl.train` leaves them, steps counted on, the stages inside."""
    run = tmp_path / "sequential"
    launches, lines, before = [], [], 0
    for name, domain, steps in (("1_math", "math", 10), ("2_chat", "chat", 20)):
        (run / name).mkdir(parents=True)
        own = metric_lines(steps, [domain])
        write_lines(run / name / "metrics.jsonl", own)
        own = own if before == 0 else [line for line in own if line["step"] > 0]
        lines += [{**line, "step": line["step"] + before, "stage": name} for line in own]
        launches.append({"command": "train", "from_step": before, "stage": name, "max_steps": steps, "processes": 1})
        before += steps
    write_lines(run / "metrics.jsonl", lines)
    (run / "run.json").write_text(json.dumps({"launches": launches}))
    (run / "recipe.yaml").write_text(
        "strategy: {sequential: {order: [math, chat]}}\ntrainer: {max_steps: 10}\ndomains: {math: {}, chat: {}}\n"
    )
    return run


def report(run):
    notes = write_report([run], run / "report.html")
    text = (run / "report.html").read_text()
    return notes, re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)), embedded(run / "report.html")["runs"][0]


def test_stages_are_named_and_marked(sequence):
    _, text, data = report(sequence)
    assert "2 of 2 stages, 30 steps: 1_math begins after step 0; 2_chat begins after step 10." in text
    assert "1_math from step 0" in text and "2_chat from step 10" in text  # the record of commands
    assert "resumed" not in text and "strategy sequential" in text
    assert data["stages"] == [["1_math", 0], ["2_chat", 10]]
    reward = next(c for c in data["charts"]["training"] if c["title"] == "Reward")
    assert [(s["label"], s["steps"][0], s["steps"][-1]) for s in reward["series"]] == [
        ("chat", 11, 30),
        ("math", 1, 10),
    ]


def test_an_unfinished_sequence_says_so(sequence):
    lines = (sequence / "metrics.jsonl").read_text().splitlines()
    (sequence / "metrics.jsonl").write_text("".join(line + "\n" for line in lines if "2_chat" not in line))
    _, text, _ = report(sequence)
    assert "1 of 2 stages, 10 steps: 1_math begins after step 0." in text


def test_a_stage_is_an_ordinary_run(sequence):
    _, text, data = report(sequence / "2_chat")
    assert data["stages"] == [] and "inished at step 20" in text


def test_a_merged_policy_had_no_training(tmp_path):
    run = tmp_path / "merge"
    run.mkdir()
    write_lines(run / "metrics.jsonl", [{"step": 0, "eval_domain/chat/reward": 0.25, "eval_domain/math/reward": 0.5}])
    (run / "run.json").write_text(json.dumps({"launches": [{"command": "train", "from_step": 0, "max_steps": 40}]}))
    (run / "recipe.yaml").write_text("strategy: {merge: {method: ties}}\ndomains: {math: {}, chat: {}}\n")
    notes, text, data = report(run)
    assert "Merged from other policies: there was no training." in text
    assert "Evaluated only once, so there is no change to show: chat, math." in notes
    assert "math 0.5 – –" in text
    assert [c["title"] for c in data["charts"]["training"]] == ["Held-out reward"]


def test_a_run_beside_them_has_no_stages(tmp_path):
    _, _, data = report(write_run(tmp_path / "run"))
    assert data["stages"] == []
