"""What surgery or measuring cost: the page's figures against NumPy on metrics.jsonl."""

import json
import re

import numpy as np
import pytest

from mgs_trl.report import write_report
from mgs_trl.report.cost import cost_of, duration
from mgs_trl.report.read import read_runs

from .logs import write_lines, write_run


def means(directory) -> dict[str, float]:
    """Mean of each of the three figures that was logged."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in line} & {"step_time", "seconds/training", "surgery/seconds"}
    return {name: float(np.mean([line[name] for line in lines if name in line])) for name in names}


def text_of(path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", path.read_text().split("</header>")[1]))


def test_figures_are_the_logged_means(tmp_path):
    run = write_run(tmp_path / "run")
    write_report([run], tmp_path / "report.html")
    text, logged = text_of(tmp_path / "report.html"), means(run)
    share = logged["surgery/seconds"] / logged["seconds/training"]
    assert f"took {1000 * logged['surgery/seconds']:.3g} ms per step, {share:.1%} of the" in text
    assert f"{logged['seconds/training']:.3g} s that a step takes without its rollouts" in text
    assert "Copies of domain gradients take 256 MiB in host memory" in text
    assert "What did surgery cost?" in text and "The update is unchanged" not in text


def test_observing_says_that_the_update_is_unchanged(tmp_path):
    run = write_run(tmp_path / "run")
    launches = json.loads((run / "run.json").read_text())
    launches["launches"][0]["settings"]["surgery"] = "observe"
    (run / "run.json").write_text(json.dumps(launches))
    write_report([run], tmp_path / "report.html")
    text = text_of(tmp_path / "report.html")
    assert "What did measuring cost?" in text and "Measuring conflicts (keeping" in text
    assert "The update is unchanged" in text


def test_compared_runs_have_a_row_each(tmp_path):
    runs = [write_run(tmp_path / "mgs"), write_run(tmp_path / "mixed", seed=1)]
    lines = [json.loads(line) for line in (runs[1] / "metrics.jsonl").read_text().splitlines()]
    write_lines(runs[1] / "metrics.jsonl", [{k: v for k, v in x.items() if "surgery" not in k} for x in lines])
    write_report(runs, tmp_path / "report.html")
    text = text_of(tmp_path / "report.html")
    first, second = means(runs[0]), means(runs[1])
    surgery, training = first["surgery/seconds"], first["seconds/training"]
    share = f"{100 * surgery / training:.1f}%"
    assert f"mgs {first['step_time']:.3g} s {training:.3g} s {1000 * surgery:.3g} ms {share} 256 MiB" in text
    assert f"mixed {second['step_time']:.3g} s {second['seconds/training']:.3g} s – – –" in text


def test_a_run_that_logged_no_cost_has_none(tmp_path):
    run = write_run(tmp_path / "run")
    write_lines(run / "metrics.jsonl", [{"step": 1, "loss": 0.1}])
    cost = cost_of(read_runs([run])[0])
    assert cost.sentences == [] and cost.share is None and cost.places == ""


@pytest.mark.parametrize("seconds, text", [(None, "–"), (0.0123456, "12.3 ms"), (1.5, "1.5 s"), (61.04, "61 s")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_weights_that_were_set_are_not_called_surgery(tmp_path):
    run = write_run(tmp_path / "run")
    launches = json.loads((run / "run.json").read_text())
    domains = json.loads((run / "conflicts.jsonl").read_text().splitlines()[0])["domains"]
    own = launches["launches"][0]["settings"]
    own |= {"surgery": "none", "balance": "none", "domain_weights": dict.fromkeys(domains, 2.0)}
    (run / "run.json").write_text(json.dumps(launches))
    write_report([run], tmp_path / "report.html")
    text = text_of(tmp_path / "report.html")
    assert "There was no surgery: these are the weights that were set (domain_weights: " in text
    assert "Weighting the domains (keeping" in text and "The constant weighting nearest to what surgery did" not in text
    own["surgery"] = "pcgrad"
    (run / "run.json").write_text(json.dumps(launches))
    write_report([run], tmp_path / "report.html")
    assert "The weights include those that were set (domain_weights: " in text_of(tmp_path / "report.html")
    own["domain_weights"] = dict.fromkeys(domains, 1)  # set, and nothing
    (run / "run.json").write_text(json.dumps(launches))
    write_report([run], tmp_path / "report.html")
    assert "that were set" not in text_of(tmp_path / "report.html")


@pytest.mark.parametrize("surgery", ["none", "observe"])
def test_weights_of_balancing_alone_are_not_called_surgery(tmp_path, surgery):
    run = write_run(tmp_path / "run")
    launches = json.loads((run / "run.json").read_text())
    own = launches["launches"][0]["settings"]
    own |= {"surgery": surgery, "balance": "domain", "domain_weights": None}
    (run / "run.json").write_text(json.dumps(launches))
    write_report([run], tmp_path / "report.html")
    text = text_of(tmp_path / "report.html")
    assert "The constant weighting nearest to what balancing did: " in text
    assert "There was no surgery: these are the weights of balancing norms (balance: domain)." in text
    assert "not surgery alone" not in text and "the control that tells reweighting from projection" not in text
