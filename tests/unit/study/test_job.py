"""One run, for real: training and evaluation of a tiny policy by the real trainer, in this process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mgs_trl import MGSTrainer
from mgs_trl.recipe import load_recipe
from mgs_trl.study.job import RECIPE, execute
from mgs_trl.study.plan import RESULT, Run, plan_runs
from tests.support.trackers import wandb_runs

CONTENT = """
model: {policy}
rollout: transformers
domains:
  chat: {{dataset: {data}, eval_dataset: {data}, verifier: {{"count:share": {{isolated: false}}}}}}
  math: {{dataset: {data}, eval_dataset: {data}, verifier: {{"count:share": {{isolated: false}}}}}}
trainer:
  use_cpu: true
  bf16: false
  max_steps: 1
  logging_steps: 1
  num_generations: 2
  per_device_train_batch_size: 8
  per_device_eval_batch_size: 8
  max_completion_length: 4
  learning_rate: 0.05
  report_to: none
  disable_tqdm: true
  save_strategy: "no"
study:
  seeds: 1
  evaluations: 3
  strategies:
    mixed: [strategy=mixed]
    mgs: [strategy=mgs]
    fixed: ["strategy={{fixed_weights: {{from: <mgs>}}}}"]
    second: [model.name_or_path=<mixed>, "strategy={{single: {{domain: chat}}}}"]
    sequence: ["strategy={{sequential: {{order: [chat, math]}}}}"]
    merged: ["strategy={{merge: {{experts: {{chat: <second>, math: <mixed>}}}}}}"]
"""


@pytest.fixture
def study(tmp_path, tiny_policy, monkeypatch):
    (tmp_path / "count.py").write_text(
        "def share(completions, **columns):\n"
        "    return [sum(int(w[1:]) % 2 for w in c.split() if w[1:].isdigit()) / 4 for c in completions]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"w{i} w{i + 1}"}) + "\n" for i in range(8)))
    path = tmp_path / "recipe.yaml"
    path.write_text(CONTENT.format(policy=tiny_policy, data=tmp_path / "rows.jsonl"))
    monkeypatch.setenv(RECIPE, str(path))
    return path


def result(run: Run) -> dict:
    return json.loads((run.directory / RESULT).read_text())


def test_a_mean_is_of_all_domains_or_the_run_fails(study, tmp_path):
    """A domain that no verifier scored is missing in the log, not zero."""
    study.write_text(
        study.read_text().replace("  math: {dataset", "  other: {dataset").replace('"count:share"', '"count:part"', 1)
    )
    with (tmp_path / "count.py").open("a") as file:
        file.write("\n\ndef part(completions, **columns):\n    return [None] * len(completions)\n")
    runs = {run.strategy: run for run in plan_runs(load_recipe(study), [], tmp_path / "out")}
    with pytest.raises(ValueError, match="3 of 3 evaluations scored no completion of domain 'chat'"):
        execute(runs["base"])
    assert not runs["base"].finished


def test_runs_train_evaluate_and_build_on_one_another(study, tmp_path):
    runs = {run.strategy: run for run in plan_runs(load_recipe(study), [], tmp_path / "out")}
    for name in ("base", "mixed", "mgs", "fixed", "second"):
        assert not runs[name].finished
        execute(runs[name])
        assert runs[name].finished
    evaluated = [json.loads(line) for line in (runs["mixed"].directory / "evaluation/metrics.jsonl").open()]
    rewards = [entry["eval_domain/math/reward"] for entry in evaluated if "eval_domain/math/reward" in entry]
    assert len(rewards) == 3
    assert result(runs["mixed"])["scores"]["math"] == pytest.approx(sum(rewards) / 3, rel=1e-12)
    fixed = load_recipe(runs["fixed"].directory / "recipe.yaml")
    assert fixed.strategy == {"fixed_weights": {"from": str(runs["mgs"].directory)}}
    second = json.loads((runs["second"].directory / "run.json").read_text())["launches"][-1]["settings"]
    assert second["mixture"] == {"chat": 1.0}
    assert result(runs["base"])["scores"] != result(runs["mixed"])["scores"]

    again = result(runs["mixed"])
    (runs["mixed"].directory / "left_behind").touch()
    execute(runs["mixed"])
    assert result(runs["mixed"])["scores"] == again["scores"]
    assert not (runs["mixed"].directory / "left_behind").exists()


def test_a_recipe_for_several_ranks_is_studied_on_one(study, tmp_path, monkeypatch):
    """A worker is the only rank, whose vLLM cannot be parallel."""
    study.write_text(study.read_text().replace("trainer:\n", "trainer:\n  vllm_tensor_parallel_size: 2\n"))
    runs = {run.strategy: run for run in plan_runs(load_recipe(study), [], tmp_path / "out")}
    sizes = []
    made = MGSTrainer.__init__

    def look(self, model, reward_funcs=None, args=None, *rest, **options):
        assert args is not None
        sizes.append(args.vllm_tensor_parallel_size)
        made(self, model, reward_funcs, args, *rest, **options)

    monkeypatch.setattr(MGSTrainer, "__init__", look)
    execute(runs["mixed"])
    assert sizes == [1, 1]  # training and evaluation


def test_trackers_show_each_run_by_itself(study, tmp_path, monkeypatch, offline_wandb):
    """Also one that comes after a run that has failed in the same worker."""
    study.write_text(study.read_text().replace("report_to: none", "report_to: wandb"))
    runs = {run.strategy: run for run in plan_runs(load_recipe(study), [], tmp_path / "out")}
    with monkeypatch.context() as patch:
        patch.setattr("mgs_trl.study.job.save_policy", None)
        with pytest.raises(TypeError):
            execute(runs["mgs"])
    assert offline_wandb.run is None
    execute(runs["mixed"])
    assert offline_wandb.run is None
    assert {name: len(tags["train/global_step"]) for name, tags in wandb_runs(tmp_path).items()} == {
        "out-default-mgs-seed0": 2,
        "out-default-mixed-seed0": 2,
        "out-default-mixed-seed0-evaluation": 1,
    }


@pytest.mark.parametrize("adapter", [[], ["peft={r: 2, target_modules: [q_proj], init_lora_weights: gaussian}"]])
def test_strategies_of_several_runs_leave_one_whole_policy(study, tmp_path, adapter):
    """Also with adapters: what is evaluated, merged or trained further is a policy with its adapter merged into it."""
    overrides = [*adapter, "study.evaluations=2"]
    runs = {run.strategy: run for run in plan_runs(load_recipe(study, overrides), overrides[:-1], tmp_path / "out")}
    for name in ("mixed", "second", "sequence", "merged"):
        execute(runs[name])
    weights = {name: load_file(runs[name].directory / "model.safetensors") for name in runs if runs[name].finished}
    name = "model.layers.0.self_attn.q_proj.weight"
    mean = (weights["second"][name].double() + weights["mixed"][name].double()) / 2
    assert torch.allclose(weights["merged"][name].double(), mean, rtol=1e-6, atol=1e-9)
    last = load_file(runs["sequence"].directory / "2_math" / "model.safetensors")
    assert torch.equal(weights["sequence"][name], last[name])
    base = load_file(Path(load_recipe(study).model.name_or_path) / "model.safetensors")
    assert not any(torch.equal(base[name], trained[name]) for trained in weights.values())
    lines = [json.loads(line) for line in (runs["merged"].directory / "evaluation/metrics.jsonl").open()]
    assert sum("eval_domain/math/reward" in line for line in lines) == 2


@pytest.mark.slow
def test_the_command_goes_on_after_an_interruption(study, tmp_path):
    command = [sys.executable, "-m", "mgs_trl.study", str(study), "workers=2", f"trainer.output_dir={tmp_path / 'out'}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 150
    while not (kept := list(tmp_path.glob(f"out/runs/*/*/*/{RESULT}"))):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGINT
    assert "interrupted" in errors and "Traceback" not in errors
    written = {path: path.stat().st_mtime_ns for path in kept}
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert second.returncode == 0, second.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == written
    assert {path.parent.parent.name for path in tmp_path.glob(f"out/runs/*/*/*/{RESULT}")} == {
        *("base", "mixed", "mgs", "fixed", "second", "sequence", "merged")
    }
    table = (tmp_path / "out" / "study.md").read_text()
    assert "7 of 7 runs" in table and "Runs without a result" not in table
