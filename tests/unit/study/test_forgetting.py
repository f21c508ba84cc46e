"""Training domain after domain forgets: the one finding about strategies that is large enough to be asserted."""

import json
from pathlib import Path

import pytest

from mgs_trl.study.__main__ import load_study
from mgs_trl.study.job import RECIPE, execute
from mgs_trl.study.miniature.build import build_miniature
from mgs_trl.study.plan import RESULT, plan_runs

STUDY = Path(__file__).parents[3] / "recipes" / "miniature_study.yaml"


@pytest.mark.slow
def test_a_later_stage_forgets_what_an_earlier_one_was_trained_on(tmp_path, monkeypatch):
    """Instruction following, then chat, as in the miniature study but for longer, so that it shows with one seed."""
    monkeypatch.setenv("MGS_TRL_CACHE", str(tmp_path))
    monkeypatch.setenv(RECIPE, str(STUDY))
    build_miniature(tmp_path / "miniature-v1-seed0-small", seed=0, size="small")
    chosen = ["strategies=[mixed,single_instruction_following,instructions_chat]", "seeds=1", "trainer.max_steps=120"]
    recipe, overrides = load_study(str(STUDY), chosen)
    scores = {}
    for run in plan_runs(recipe, overrides, tmp_path / "study"):
        if run.strategy.endswith(("single_instruction_following", "instructions_chat")):
            execute(run)
            scores[run.strategy] = json.loads((run.directory / RESULT).read_text())["scores"]
    before, after = scores["single_instruction_following"], scores["instructions_chat"]
    assert after["instruction_following"] < before["instruction_following"] - 0.05
    assert after["chat"] > before["chat"] + 0.1
