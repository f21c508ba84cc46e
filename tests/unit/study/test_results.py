"""Comparisons of a study by hand: sequences, entropy, contrasts, and what is written of them."""

import csv
import json
import math

import pytest

from mgs_trl.recipe import StudySpec
from mgs_trl.study.plan import Run
from mgs_trl.study.results import Result, Results, read_result
from mgs_trl.study.table import grids, write_csv

SEQUENCES = [{"math": "single_math", "chat": "math_chat"}, {"chat": "single_chat", "math": "chat_math"}]
NAMES = ("mixed", "mgs", "single_math", "math_chat", "single_chat", "chat_math")
# (math, chat) with seed 0 and seed 1
SCORES = {
    "mixed": [(0.6, 0.6), (0.5, 0.7)],
    "mgs": [(0.7, 0.6), (0.9, 0.5)],
    "single_math": [(0.8, 0.2), (0.6, 0.2)],
    "math_chat": [(0.3, 0.7), (0.2, 0.6)],
    "single_chat": [(0.1, 0.9), (0.1, 0.7)],
    "chat_math": [(0.7, 0.4), (0.6, 0.5)],
}


def make_results(**scores) -> Results:
    study = StudySpec(strategies={name: [] for name in NAMES}, sequences=SEQUENCES, contrasts=[["mgs", "single_math"]])
    found = [
        Result(
            "default", name, seed, 0, "s", {"math": math, "chat": chat, "mean": (math + chat) / 2}, {"training": 3.0}
        )
        for name, pairs in {**SCORES, **scores}.items()
        for seed, (math, chat) in enumerate(pairs)
    ]
    return Results(found, study)


def test_forgetting_and_rigidity():
    first, second, third, fourth = make_results().stages("default")
    # math > chat: math falls from 0.8, 0.6 to 0.3, 0.2; chat reaches 0.7, 0.6 where alone it reached 0.9, 0.7.
    assert (first.domain, first.forgetting.mean, first.forgetting.n) == ("math", pytest.approx(-0.45), 2)
    assert math.isnan(first.rigidity.mean)
    assert (second.domain, second.rigidity.mean, second.forgetting.n) == ("chat", pytest.approx(-0.15), 0)
    # chat > math: chat falls from 0.9, 0.7 to 0.4, 0.5; math reaches 0.7, 0.6 where alone it reached 0.8, 0.6.
    assert (third.domain, third.forgetting.mean) == ("chat", pytest.approx(-0.35))
    assert (fourth.domain, fourth.rigidity.mean) == ("math", pytest.approx(-0.05))


def test_an_unfinished_sequence_is_left_out_and_a_missing_seed_unpaired():
    assert {stage.order for stage in make_results(chat_math=[]).stages("default")} == {"math > chat"}
    stages = make_results(math_chat=SCORES["math_chat"][:1]).stages("default")
    assert (stages[0].forgetting.n, stages[0].forgetting.mean) == (1, pytest.approx(-0.5))


def test_forgetting_and_rigidity_of_different_seeds_have_a_number_each():
    """The middle stage of three has both; here the second run of chat alone is missing."""
    names = ("math", "math_chat", "all", "chat")
    sequences = [{"math": "math", "chat": "math_chat", "code": "all"}, {"chat": "chat"}]
    study = StudySpec(strategies={name: [] for name in names}, baseline="math", sequences=sequences)
    seeds = [(name, seed) for name in names for seed in range(2) if (name, seed) != ("chat", 1)]
    scores = {"math": 0.5, "chat": 0.5, "code": 0.5, "mean": 0.5}
    results = Results([Result("default", name, seed, 0, "s", scores, {}) for name, seed in seeds], study)
    [table] = [grid for grid in grids(results, []) if grid.title == "default: sequential training"]
    assert [(row[1], row[-1]) for row in table.rows[:3]] == [("math", "2"), ("chat", "2 and 1"), ("code", "0")]


def test_differences_are_to_the_baseline_and_contrasts_to_the_other(tmp_path):
    results = make_results()
    write_csv(results, tmp_path / "study.csv")
    rows = list(csv.DictReader((tmp_path / "study.csv").open()))
    found = {(row["strategy"], row["against"], row["domain"]): row for row in rows}
    assert len(found) == len(rows) == (6 + 1) * 3
    math_gap = found["mgs", "mixed", "math"]
    assert float(math_gap["difference"]) == pytest.approx(0.25)  # 0.1 and 0.4: half-width 12.706 * 0.15
    assert float(math_gap["high"]) - float(math_gap["low"]) == pytest.approx(2 * 12.7062 * 0.15, rel=1e-4)
    assert (math_gap["positive"], math_gap["pairs"], math_gap["seeds"]) == ("2", "2", "2")
    assert float(found["mgs", "single_math", "chat"]["difference"]) == pytest.approx(0.35)


def test_tables_name_what_is_missing_and_skip_what_is_empty():
    titles = [grid.title for grid in grids(make_results(), [("default/x/seed0", "not run yet")])]
    assert [title.split(" (")[0] for title in titles] == [
        "default: held-out score",
        "default: difference to mixed",
        "default: further differences",
        "default: sequential training",
        "Runs without a result",
    ]


def test_entropy_by_thirds_of_the_log(tmp_path):
    run = Run("default", "mixed", 0, 0, tmp_path, ("x",), ("x",), (), "s")
    content = {"regime": "default", "strategy": "mixed", "seed": 0, "checkpoint": 0, "settings": "s"}
    (tmp_path / "result.json").write_text(json.dumps({**content, "scores": {"a": 1.0, "b": 0.5}, "seconds": {}}))
    lines = [{"step": step, "domain/a/entropy": step} for step in (1, 2, 3, 4, 5, 6)]
    lines[2:2] = [{"step": 2, "eval_domain/a/reward": 1.0}, {"step": 2, "domain/a/entropy": None}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = read_result(run)
    assert result.entropy == {"a": [1.5, 3.5, 5.5]}
    assert result.scores == {"a": 1.0, "b": 0.5, "mean": 0.75}
