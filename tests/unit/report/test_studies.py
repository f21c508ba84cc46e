"""A study's directory in the report: its numbers as written, what its intervals say, and damaged tables."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgs_trl.report import write_report
from mgs_trl.report.intervals import _ticks, interval_plots
from mgs_trl.report.studies import read_studies
from mgs_trl.study.table import Grid

from .logs import write_run

HEAD = "regime,strategy,domain,mean,standard_error,seeds,against,difference,low,high,pairs,positive\n"
TABLE = f"""{HEAD}heavy,mixed,math,0.5,0.01,5,mixed,nan,nan,nan,0,0
heavy,mixed,mean,0.4,0.02,5,mixed,nan,nan,nan,0,0
heavy,mgs,math,0.625,0.03,5,mixed,0.125,0.0625,0.1875,4,4
heavy,mgs,mean,0.375,0.04,5,mixed,-0.025,-0.075,0.0251,4,1
heavy,mgs,math,0.625,0.03,5,global,-0.25,-0.3,-0.2,3,0
heavy,mgs,mean,0.375,0.04,5,global,-0.25,-0.3,-0.2,3,0
plain,mixed,math,0.5,nan,1,mixed,nan,nan,nan,0,0
plain,mixed,mean,0.5,nan,1,mixed,nan,nan,nan,0,0
"""


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "miniature_study"
    folder.mkdir()
    (folder / "study.csv").write_text(TABLE)
    return folder


def text_of(path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", path.read_text().split("</header>")[1]))


def test_scores_and_differences_stand_in_the_page(study, tmp_path):
    assert write_report([study], tmp_path / "report.html") == []
    text = text_of(tmp_path / "report.html")
    assert "mgs − mixed 0.625 ± 0.03 ▲ +0.125 [+0.062, +0.188] 0.375 ± 0.04 −0.025 [−0.075, +0.025] 5 4 pairs" in text
    assert "mgs − global 0.625 ± 0.03 ▼ −0.250 [−0.300, −0.200]" in text
    assert "mixed 0.5 0.5 1" in text  # one seed has no error
    assert "Of 2 differences of the mean, 1 leave out zero; chance alone would give about 0.1" in text


def test_regimes_and_pairs_are_kept_apart(study):
    (found,) = read_studies([study], ["s"])
    assert {
        regime: [(row.strategy, row.against, row.pairs) for row in rows] for regime, rows in found.regimes.items()
    } == {
        "heavy": [("mixed", "mixed", 0), ("mgs", "mixed", 4), ("mgs", "global", 3)],
        "plain": [("mixed", "mixed", 0)],
    }
    assert found.domains == ["math", "mean"]


def test_differences_are_drawn_to_scale(study):
    (found,) = read_studies([study], ["s"])
    mean, math = interval_plots(found, "heavy")
    assert (mean.domain, math.domain) == ("mean", "math")
    assert [(strategy, against) for strategy, against, _ in math.rows] == [("mgs", "mixed"), ("mgs", "global")]
    assert math.ticks == [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2]
    for _, _, gap in math.rows:
        for value in (gap.low, gap.difference, gap.high):
            assert math.at(value) == pytest.approx((value + 0.3) / 0.5 * 100, abs=0.01)
    assert interval_plots(found, "plain") == []  # nothing to compare


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=2))
def test_axes_have_few_round_ticks_around_all_values_and_zero(values):
    low, high = min([*values, 0.0]), max([*values, 0.0])
    ticks = _ticks(low, high)
    assert 2 <= len(ticks) <= 8 and 0.0 in ticks
    slack = 1e-6 * (high - low)
    assert ticks[0] <= low + slack and high - slack <= ticks[-1]


def test_the_rest_of_the_study_stands_in_the_page(study, tmp_path):
    (study / "study.md").write_text(
        "head\n### plain: held-out score\n\n| a | b |\n| --- | ---: |\n| shown already | 1 |\n\n"
        "### plain: sequential training\n\n| order | forgetting |\n| --- | ---: |\n| math > chat | -0.087 |\n"
        + Grid("Runs without a result", ("run", "why"), [("plain/x/seed0", "int | None is no type")]).markdown()
    )
    (study / "study.yaml").write_text("model: {name_or_path: policy, kwargs: {token: hf_1}}\n")
    launch = {"command": "python -m mgs_trl.study x hub_token=hf_2", "time": "noon", "versions": {"torch": "2.13.0"}}
    (study / "study.json").write_text(json.dumps({"launches": [launch]}))
    write_report([study], tmp_path / "report.html")
    text = text_of(tmp_path / "report.html")
    assert "plain: sequential training order forgetting math &gt; chat -0.087" in text and "shown already" not in text
    assert "Runs without a result run why plain/x/seed0 int | None is no type" in text
    assert "python -m mgs_trl.study x hub_token=(hidden)" in text and "torch 2.13.0" in text
    assert "name_or_path: policy" in text and "hf_1" not in text
    (study / "study.json").write_text("{")
    with pytest.raises(ValueError, match=r"study\.json is damaged"):
        write_report([study], tmp_path / "report.html")


def test_a_study_and_runs_share_a_page(study, tmp_path):
    run = write_run(tmp_path / "run")
    write_report([study, run], tmp_path / "report.html")
    text = text_of(tmp_path / "report.html")
    assert "miniature_study" in text and "mgs − mixed" in text
    assert "Finished at step 60 of 60" in text


@pytest.mark.parametrize("table", [HEAD, HEAD + "heavy,mgs,math,high\n", "regime,strategy\nheavy,mgs\n"])
def test_a_damaged_table_is_named(table, tmp_path):
    (tmp_path / "study.csv").write_text(table)
    with pytest.raises(ValueError, match=r"study\.csv"):
        write_report([tmp_path], tmp_path / "report.html")
