"""Worker processes: each run once, failures named, nothing left behind when the study is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mgs_trl.study.__main__ import main
from mgs_trl.study.plan import Run
from mgs_trl.study.schedule import Schedule
from mgs_trl.study.workers import work_off

ROOT = Path(__file__).parents[3]
JOB = """
import json, os, time

def execute(run):
    with open(os.environ["TRACE"], "a") as file:
        file.write(f"{run.name} {os.getpid()} {os.environ.get('PLACE')}\\n")
    if run.strategy == "raises":
        raise ValueError("not today\\nand not tomorrow")
    if run.strategy == "dies":
        os._exit(3)
    while run.strategy == "hangs" and os.environ.get("HANG"):
        time.sleep(0.05)
    score = {"mixed": 0.25, "mgs": 0.5}.get(run.strategy, 0.0) + 0.125 * run.seed
    result = dict(regime=run.regime, strategy=run.strategy, seed=run.seed, checkpoint=run.checkpoint,
                  settings=run.settings, scores={"math": score, "chat": 1.0}, seconds={"training": 2.0})
    (run.directory / "result.json").write_text(json.dumps(result))
"""
RECIPE = """
model: policy
domains: {math: {dataset: a.jsonl, eval_dataset: a.jsonl, verifier: math}}
study:
  seeds: 2
  strategies: {mixed: [strategy=mixed], mgs: [strategy=mgs], STRATEGIES}
  contrasts: [[mgs, mixed]]
"""


@pytest.fixture
def trace(tmp_path, monkeypatch) -> Path:
    """A job in place of training, and the file where it notes each call: name of the run, process, environment."""
    (tmp_path / "stand_in.py").write_text(JOB)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    monkeypatch.setattr("mgs_trl.study.__main__.TARGET", "stand_in:execute")
    return tmp_path / "trace"


def calls(trace: Path) -> list[list[str]]:
    return [line.split() for line in trace.read_text().splitlines()] if trace.exists() else []


def make_run(directory: Path, strategy: str, seed: int, *needs: str) -> Run:
    return Run("r", strategy, seed, 0, directory / f"{strategy}{seed}", (), (), needs, "s")


def write_recipe(directory: Path, strategies: str) -> str:
    path = directory / "recipe.yaml"
    path.write_text(RECIPE.replace("STRATEGIES", strategies))
    return str(path)


def test_a_worker_goes_on_after_an_error_and_is_replaced_when_it_dies(tmp_path, trace):
    runs = [make_run(tmp_path, strategy, 0) for strategy in ("raises", "mixed", "dies", "mgs")]
    runs.insert(0, make_run(tmp_path, "needy", 0, "r/mgs/seed0"))
    schedule = Schedule(runs, [])
    ended = []
    work_off(schedule, "stand_in:execute", [{"PLACE": "one"}], lambda run, reason: ended.append((run.strategy, reason)))
    assert ended == [
        ("raises", "ValueError: not today"),
        ("mixed", None),
        ("dies", "its process ended with exit code 3"),
        ("mgs", None),
        ("needy", None),
    ]
    process = {name: pid for name, pid, _ in calls(trace)}
    assert process["r/raises/seed0"] == process["r/mixed/seed0"] == process["r/dies/seed0"]
    assert process["r/mgs/seed0"] == process["r/needy/seed0"] != process["r/dies/seed0"]
    assert "and not tomorrow" in (tmp_path / "raises0.txt").read_text()  # what it printed, with the traceback


def test_each_worker_has_its_own_environment(tmp_path, trace):
    runs = [make_run(tmp_path, "mixed", seed) for seed in range(12)]
    schedule = Schedule(runs, [])
    work_off(schedule, "stand_in:execute", [{"PLACE": "one"}, {"PLACE": "two"}])
    found = {(pid, place) for _, pid, place in calls(trace)}
    assert len(found) == len({pid for pid, _ in found}) <= 2 and {place for _, place in found} <= {"one", "two"}
    assert sorted(name for name, _, _ in calls(trace)) == sorted(run.name for run in runs)


def test_a_failed_run_is_named_and_the_others_are_compared(tmp_path, trace, capsys):
    recipe = write_recipe(tmp_path, "raises: [strategy=mixed], after: [model=<raises>]")
    out = tmp_path / "out"
    assert main([recipe, f"trainer.output_dir={out}", "workers=1"]) == 1
    table = (out / "study.md").read_text()
    assert "| default/raises/seed0 | ValueError: not today |" in table
    assert "| default/after/seed1 | needs default/raises/seed1, which failed |" in table
    # mixed: 0.25 and 0.375; mgs: 0.5 and 0.625; chat is 1 for both, so the mean differs by half of math's 0.25
    assert "| mixed | 1.000 ± 0.000 | 0.312 ± 0.062 | 0.656 ± 0.031 | 2 | 2 |" in table
    assert "| mgs | +0.000 [+0.000, +0.000] | +0.250 [+0.250, +0.250] | +0.125 [+0.125, +0.125] | 2 | 2 |" in table
    assert "not today" in capsys.readouterr().out
    before = calls(trace)
    (out / "runs/default/mgs/seed0/result.json").unlink()
    assert main([recipe, f"trainer.output_dir={out}", "workers=1"]) == 1
    again = [name for name, _, _ in calls(trace)[len(before) :]]
    assert sorted(again) == ["default/mgs/seed0", "default/raises/seed0", "default/raises/seed1"]


def test_any_recipe_can_be_studied_by_naming_strategies(tmp_path, trace, capsys):
    recipe, out = tmp_path / "plain.yaml", f"trainer.output_dir={tmp_path / 'out'}"
    recipe.write_text(RECIPE.split("study:")[0])
    assert main([str(recipe), out]) == 2
    assert "strategies=[" in capsys.readouterr().err
    assert main([str(recipe), out, "strategies=[mixed,balanced]", "seeds=2", "workers=1"]) == 0
    assert sorted(name for name, _, _ in calls(trace)) == [
        "base/base/seed0",
        *(f"default/{name}/seed{seed}" for name in ("balanced", "mixed") for seed in (0, 1)),
    ]
    assert main([str(recipe), out, "strategies=[mixed,balancd]"]) == 2
    assert "Did you mean 'balanced'?" in capsys.readouterr().err
    assert main([str(recipe), out, "strategies=[single]"]) == 2  # of which domain?


def test_a_study_leaves_no_credentials(tmp_path, trace):
    recipe, out = write_recipe(tmp_path, "other: [trainer.hub_token=hf_2]"), tmp_path / "out"
    assert main([recipe, f"trainer.output_dir={out}", "trainer.hub_token=hf_1", "seeds=1", "workers=1"]) == 0
    assert "hub_token: (hidden)" in (out / "study.yaml").read_text()
    assert "trainer.hub_token=(hidden)" in (out / "study.json").read_text()
    left = [path.read_text() for path in out.rglob("*") if path.is_file()]
    assert len(left) > 4 and not any("hf_1" in text or "hf_2" in text for text in left)


def test_what_cannot_work_is_said_before_anything_is_trained(tmp_path, trace, capsys):
    path = tmp_path / "recipe.yaml"
    out = f"trainer.output_dir={tmp_path / 'out'}"
    blind = RECIPE.replace("eval_dataset: a.jsonl, ", "")
    path.write_text(blind.replace("STRATEGIES", "other: []"))
    assert main([str(path), out]) == 2
    assert "domains.math has no eval_dataset" in capsys.readouterr().err
    assert main([write_recipe(tmp_path, "other: [domains.math.shere=2]"), out]) == 2
    assert "share" in capsys.readouterr().err
    for other, words in {
        "strategy=mgss": ["'other' in regime 'default'", "Did you mean 'mgs'?"],
        "trainer.granulrity=layer": ["Did you mean 'granularity'?"],
        "strategy=balanced, trainer.gramian_ema=0.9": ["contradicts strategy 'balanced'"],
        "trainer.num_generations=7": ["num_generations"],
    }.items():
        assert main([write_recipe(tmp_path, f"other: [{other}]"), out]) == 2
        said = capsys.readouterr().err
        assert all(word in said for word in words), said
    assert main([write_recipe(tmp_path, "other: []"), out, "study.sequences=[{maths: other}]"]) == 2
    assert "study.sequences names 'maths'" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.jsonl").touch()
    assert main([write_recipe(tmp_path, "other: []"), out]) == 2
    assert "holds a run of its own" in capsys.readouterr().err
    assert main([write_recipe(tmp_path, "other: []"), "trainer.output_dir=/proc"]) == 2
    assert "trainer.output_dir is '/proc', which cannot be made or written to" in capsys.readouterr().err
    assert calls(trace) == []


def test_the_documented_study_can_run(tmp_path, trace, capsys):
    """The YAML of docs/study.md, with the recipe that it speaks of."""
    recipe = yaml.safe_load(RECIPE.split("study:")[0])
    recipe["domains"]["chat"] = recipe["domains"]["math"]
    recipe["trainer"] = {"domain_weights": {"math": 1.0, "chat": 1.0}, "per_device_train_batch_size": 16}
    block = (ROOT / "docs/study.md").read_text().split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, **yaml.safe_load(block)}))
    assert main([str(path), f"trainer.output_dir={tmp_path / 'out'}", "workers=1", "seeds=1"]) == 0
    assert len(calls(trace)) == 1 + 2 * 4 + 1


def test_fewer_regimes_leave_finished_runs_as_they_are(tmp_path, trace):
    recipe, out = write_recipe(tmp_path, "other: []"), f"trainer.output_dir={tmp_path / 'out'}"
    text = Path(recipe).read_text() + "  regimes: {plain: [], heavy: [trainer.max_steps=3]}\n"
    Path(recipe).write_text(text)
    arguments = [recipe, out, "seeds=1", "strategies=[mixed]", "workers=1"]
    assert main(arguments) == 0
    before = len(calls(trace))
    assert main([*arguments, "~study.regimes.heavy"]) == 0
    assert len(calls(trace)) == before == 3


def test_results_of_other_settings_are_not_mixed_in(tmp_path, trace, capsys):
    recipe, out = write_recipe(tmp_path, "other: []"), f"trainer.output_dir={tmp_path / 'out'}"
    assert main([recipe, out, "seeds=1", "strategies=[mixed]", "workers=1"]) == 0
    assert main([recipe, out, "seeds=1", "strategies=[mixed]", "trainer.max_steps=7"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main([recipe, out, "seeds=1", "strategies=[nothing]"]) == 2
    assert len(calls(trace)) == 2  # base and mixed


def test_a_killed_study_ends_its_workers_and_goes_on_without_doing_a_run_twice(tmp_path, trace):
    recipe = write_recipe(tmp_path, "hangs: [strategy=mixed], last: [model=<hangs>]")
    out = tmp_path / "out"
    code = (
        "import sys, mgs_trl.study.__main__ as study\n"
        "study.TARGET = 'stand_in:execute'; sys.exit(study.main(sys.argv[1:]))"
    )
    arguments = [recipe, f"trainer.output_dir={out}", "seeds=1", "workers=1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)]), "HANG": "1"}
    study = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)
    wait(lambda: any("hangs" in name for name, _, _ in calls(trace)))
    (worker,) = {int(pid) for _, pid, _ in calls(trace)}
    study.send_signal(signal.SIGKILL)
    study.wait()
    wait(lambda: not alive(worker))
    assert not (out / "runs/default/hangs/seed0/result.json").exists()
    assert main(arguments) == 0
    done = [name for name, _, _ in calls(trace)]
    names = ["base/base", *(f"default/{name}" for name in ("hangs", "hangs", "last", "mgs", "mixed"))]
    assert sorted(done) == [f"{name}/seed0" for name in names]
    results = sorted(path.parent.parent.name for path in out.glob("runs/*/*/*/result.json"))
    assert results == ["base", "hangs", "last", "mgs", "mixed"]
    assert json.loads((out / "runs/default/mgs/seed0/result.json").read_text())["scores"]["math"] == 0.5


def wait(condition) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
