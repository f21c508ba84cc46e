"""Interrupted, crashed, one-domain and TRL-only runs still give a report that says what is missing; wrong input is an
error of one sentence."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgs_trl.records.redact import redact, redact_command
from mgs_trl.report import write_report
from mgs_trl.report.__main__ import main
from mgs_trl.report.charts import MAX_POINTS
from mgs_trl.report.conflicts import summarise

from .logs import conflict_lines, embedded, gramians, metric_lines, module_names, write_lines, write_run


def report(*directories):
    out = directories[0] / "report.html"
    notes = write_report(directories, out)
    text = out.read_text()
    assert "</html>" in text
    return "\n".join(notes), text, embedded(out)


def test_whole_run_misses_nothing(tmp_path):
    notes, text, data = report(write_run(tmp_path / "run"))
    assert notes == ""
    assert "Missing, or shown in part" not in text
    assert "finished at step 60 of 60" in text.lower()
    assert "accelerate launch -m mgs_trl.train miniature" in text
    assert "torch 2.13.0" in text
    assert data["runs"][0]["heat"]["pairs"] == ["chat~instruction_following", "chat~math", "instruction_following~math"]


def test_crash_in_the_middle_of_a_line(tmp_path):
    run = write_run(tmp_path / "run")
    for name in ("metrics.jsonl", "conflicts.jsonl"):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(len(content) * 0.7)])
    notes, text, data = report(run)
    assert "last line of metrics.jsonl is cut off" in notes
    assert "last line of conflicts.jsonl is cut off" in notes
    assert "the end of training was not logged" in text
    assert 30 < len(data["runs"][0]["heat"]["columns"]) < 50


def test_one_domain(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_lines(run / "metrics.jsonl", metric_lines(20, ["math"]))
    notes, _, data = report(run)
    assert "only one domain, math" in notes and "no conflicts.jsonl" in notes
    assert not data["runs"][0]["charts"]["conflict"]
    assert {c["title"] for c in data["runs"][0]["charts"]["training"]} >= {"Reward", "Held-out reward", "Length"}


def test_trl_run_with_nothing_but_a_checkpoint(tmp_path):
    run = tmp_path / "run"
    for step in (5, 10):
        (run / f"checkpoint-{step}").mkdir(parents=True)
        history = [{"step": i, "reward": i / 10, "entropy": 1.0, "grad_norm": 1.0} for i in range(1, step + 1)]
        state = {"log_history": history, "max_steps": 100}
        (run / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    notes, text, data = report(run)
    assert "log is that of checkpoint-10" in notes
    assert "No metric is named by domain" in notes
    assert "10 of 100 steps" in text
    reward = next(c for c in data["runs"][0]["charts"]["training"] if c["title"] == "Reward")
    assert [s["label"] for s in reward["series"]] == ["all rows"]
    assert reward["series"][0]["values"] == [i / 10 for i in range(1, 11)]


def test_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    for step, content in ((9, '{"log_history": [{"step": 9, "reward": 0.5}]}'), (10, '{"log_hist')):
        (run / f"checkpoint-{step}").mkdir()
        (run / f"checkpoint-{step}" / "trainer_state.json").write_text(content)
    notes, _, _ = report(run)
    assert "checkpoint-10/trainer_state.json is not JSON" in notes and "log is that of checkpoint-9" in notes


def test_crash_before_the_first_step(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "conflicts.jsonl").write_text("")
    (run / "metrics.jsonl").write_text("")
    notes, text, _ = report(run)
    assert "holds no log yet" in notes and "no conflicts.jsonl" in notes
    assert "some/model" in text


def test_missing_domain_is_named(tmp_path):
    run = write_run(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    write_lines(run / "metrics.jsonl", [{k: v for k, v in line.items() if "math" not in k} for line in lines])
    notes, _, _ = report(run)
    assert "Reward: nothing was logged of math." in notes
    assert "Never evaluated on held-out prompts: math." in notes


def test_conflicts_from_metrics_alone(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    lines = metric_lines(20, ["a", "b"])
    for line in lines:
        if "loss" in line:
            line |= {
                "conflict/a~b/cosine": -0.1,
                "conflict/a~b/share": 0.6,
                "surgery/weight/a": 1.1,
                "surgery/removed": 0.2,
            }
    write_lines(run / "metrics.jsonl", lines)
    _, _, data = report(run)
    assert [c["title"] for c in data["runs"][0]["charts"]["conflict"]] == [
        "Cosine",
        "Norm ratio",
        "Modules in conflict",
    ]
    ratio = data["runs"][0]["charts"]["conflict"][1]["series"][0]["values"]
    logged = [line["domain/a/grad_norm"] / line["domain/b/grad_norm"] for line in lines if "loss" in line]
    assert ratio == pytest.approx(logged, rel=1e-6)


def test_several_runs_are_compared(tmp_path):
    first, second = write_run(tmp_path / "x" / "run"), write_run(tmp_path / "y" / "run", seed=1)
    (second / "recipe.yaml").write_text(
        (second / "recipe.yaml").read_text().replace("strategy: mgs", "strategy: mixed")
    )
    _, text, data = report(first, second)
    assert [run["name"] for run in data["runs"]] == ["x/run", "y/run"]
    assert "Settings in which the runs differ (2)" in text  # strategy and seed
    assert "<td>mgs</td><td>mixed</td>" in text
    logged = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    scores = [line["eval_domain/math/reward"] for line in logged if "eval_domain/math/reward" in line]
    assert f"{scores[0]:.3g} → {scores[-1]:.3g}" in text
    assert "One run of each" in text


def test_downsampling_is_said_and_exact(tmp_path):
    run = write_run(tmp_path / "run", steps=20)
    write_lines(run / "metrics.jsonl", metric_lines(2500))
    _, text, data = report(run)
    assert "up to 2,500 points are shown as 1,000 means" in text
    reward = next(c for c in data["runs"][0]["charts"]["training"] if c["title"] == "Reward")["series"][0]
    logged = [line["domain/chat/reward"] for line in metric_lines(2500) if "domain/chat/reward" in line]
    parts = [logged[i * 2500 // MAX_POINTS : (i + 1) * 2500 // MAX_POINTS] for i in range(MAX_POINTS)]
    assert reward["values"] == pytest.approx([np.mean(part) for part in parts], rel=1e-6)
    assert reward["low"] == pytest.approx([min(part) for part in parts], rel=1e-6)
    assert reward["high"] == pytest.approx([max(part) for part in parts], rel=1e-6)


def test_heat_map_columns_are_means_of_their_steps():
    names, _ = module_names(1)
    gramian = gramians(1001, len(names), 2)
    conflicts = summarise(conflict_lines(gramian, np.ones((1001, len(names), 2)), ["a", "b"], 1), 1001)
    assert conflicts is not None
    assert conflicts.heat.shape == (1, len(names), 400)
    cosine = gramian[..., 0, 1] / np.sqrt(gramian[..., 0, 0] * gramian[..., 1, 1])
    assert [first for first, _ in conflicts.columns] == [1, *[last + 1 for _, last in conflicts.columns[:-1]]]
    for column, (first, last) in enumerate(conflicts.columns):
        np.testing.assert_allclose(conflicts.heat[0, :, column], cosine[first - 1 : last].mean(0))


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
VALUES = st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(), st.lists(st.floats(), max_size=3))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.one_of(VALUES, st.dictionaries(st.one_of(NAMES, st.just("step")), VALUES, max_size=5)), max_size=8),
    st.lists(NAMES, min_size=2, max_size=3, unique=True),
)
def test_any_json_gives_a_report(tmp_path_factory, junk, domains):
    """Whatever stands in the logs, and whatever domains are called, the page is whole and its data parse."""
    run = tmp_path_factory.mktemp("junk")
    names, _ = module_names(0)
    gramian = gramians(6, len(names), len(domains))
    good = conflict_lines(gramian, np.ones(gramian.shape[:3]), sorted(domains), 0)
    write_lines(run / "conflicts.jsonl", [*junk, *good, *junk])
    write_lines(run / "metrics.jsonl", [*junk, *metric_lines(6, domains), *junk])
    _, _, data = report(run)
    assert len(data["runs"][0]["means"]) == (len(names) + 3) * len(domains) * (len(domains) - 1) // 2


@pytest.mark.parametrize("domains", [["code/c", "code/py"], ["a", "a~b", "b"]])
@pytest.mark.parametrize("logged", [True, False])
def test_domains_may_be_called_like_paths_and_pairs(tmp_path, domains, logged):
    run = write_run(tmp_path / "run")
    pairs = [f"{a}~{b}" for i, a in enumerate(domains) for b in domains[i + 1 :]]
    lines = [
        {"step": 1, **{f"domain/{d}/grad_norm": i + 1.0 for i, d in enumerate(domains)}}
        | {f"domain/{d}/reward": 0.5 for d in domains}
        | {f"conflict/{pair}/cosine": -0.25 for pair in pairs}
    ]
    write_lines(run / "metrics.jsonl", lines)
    (run / "recipe.yaml").unlink()
    (run / "conflicts.jsonl").unlink()
    if logged:
        names, _ = module_names(0)
        gramian = gramians(6, len(names), len(domains))
        write_lines(run / "conflicts.jsonl", conflict_lines(gramian, np.ones(gramian.shape[:3]), domains, 0))
    notes, text, data = report(run)
    assert f"{len(domains)} domains" in text
    assert "nothing was logged of" not in notes.replace("Held-out", "")
    charts = {chart["title"]: chart for chart in data["runs"][0]["charts"]["conflict"]}
    assert [series["label"] for series in charts["Cosine"]["series"]] == pairs
    if not logged:
        ratios = {series["label"]: series["values"] for series in charts["Norm ratio"]["series"]}
        index = {d: i + 1.0 for i, d in enumerate(domains)}
        expected = [index[a] / index[b] for i, a in enumerate(domains) for b in domains[i + 1 :]]
        assert [ratios[pair][0] for pair in pairs] == pytest.approx(expected, rel=1e-6)


def test_names_cannot_become_markup(tmp_path):
    run = write_run(tmp_path / "run")
    evil = "</script><script>alert(1)</script>"
    for name in ("metrics.jsonl", "conflicts.jsonl"):
        (run / name).write_text((run / name).read_text().replace("math", evil))
    _, text, _ = report(run)
    assert evil not in text


def test_credentials_are_not_shown(tmp_path):
    _, text, _ = report(write_run(tmp_path / "run"))
    assert "sk-123" not in text and "me:pw" not in text and "(hidden)" in text
    assert redact({"pad_token": "</s>", "max_tokens": "9"}) == {"pad_token": "</s>", "max_tokens": "9"}
    hidden = redact_command("python -m x domains.chat.verifier.reward_server.api_key=sk-1 --hub_token abc seed=1")
    assert "sk-1" not in hidden and "abc" not in hidden and hidden.endswith("seed=1")


@pytest.mark.parametrize(
    "text",
    [
        "'domains.chat.verifier={reward_server: {headers: {Authorization: Bearer sk-1}}}'",
        "'domains.chat.verifier={reward_server: {headers: {Authorization: \"Bearer sk-1\"}}}'",
        "model.kwargs.token=sk-1",
        "'model.kwargs={token: sk-1}'",
        "trainer.push_to_hub_token=sk-1",
    ],
)
def test_credentials_in_commands_are_hidden_whatever_they_are_called(text):
    hidden = redact_command(f"python -m mgs_trl.train my.yaml {text} trainer.seed=1 domains.math.max_tokens=9")
    assert "sk-1" not in hidden and "(hidden)" in hidden
    assert hidden.endswith("trainer.seed=1 domains.math.max_tokens=9")


def test_credentials_in_which_runs_differ_are_hidden(tmp_path):
    first, second = write_run(tmp_path / "first"), write_run(tmp_path / "second")
    recipe = second / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("sk-123", "sk-456"))
    _, text, _ = report(first, second)
    assert "sk-123" not in text and "sk-456" not in text
    assert "domains.chat.verifier.reward_server.api_key" in text


@pytest.mark.parametrize("kind", ["absent", "file", "empty", "twice"])
def test_wrong_output_dirs_are_one_sentence(tmp_path, capsys, kind):
    path = tmp_path / "run"
    if kind == "file":
        path.write_text("")
    elif kind != "absent":
        path.mkdir()
    assert main([str(path)] * (2 if kind == "twice" else 1)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: OUTPUT_DIR '") and error.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    assert main([str(write_run(tmp_path / "run")), "--out", "/proc/report.html"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "/proc/report.html" in error and error.count("\n") == 1


def test_several_runs_without_out_go_to_the_current_directory(tmp_path, monkeypatch, capsys):
    runs = [str(write_run(tmp_path / name)) for name in "ab"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(runs) == 0
    assert capsys.readouterr().out.startswith("report.html ") and (tmp_path / "here" / "report.html").is_file()
    assert not list(tmp_path.glob("[ab]/report.html"))
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "in the current directory for several" in " ".join(capsys.readouterr().out.split())


def test_command(tmp_path):
    """The report needs neither TRL nor transformers, nor torch."""
    run = write_run(tmp_path / "run")
    code = (
        "import sys; from mgs_trl.report.__main__ import main; code = main(sys.argv[1:]); "
        "assert not {'trl', 'transformers', 'torch'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(run / "report.html"))
