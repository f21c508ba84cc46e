"""A study's directory in the report: its numbers as written, what its intervals say, and damaged tables."""

import re

import pytest

from mgs_trl.report import write_report
from mgs_trl.report.studies import read_studies

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
    assert "mixed 0.5 ± – 0.5 ± – 1" in text
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
