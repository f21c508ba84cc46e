"""Which runs a study consists of, and in which order they may be done."""

import random
from pathlib import Path

import pytest

from mgs_trl.recipe import Recipe, load_recipe, parse_recipe
from mgs_trl.study.plan import plan_runs
from mgs_trl.study.schedule import Schedule

STRATEGIES = {
    "mixed": ["strategy=mixed"],
    "fixed": ["strategy={fixed_weights: {from: <mgs>}}"],
    "mgs": ["strategy=mgs"],
    "last": ["model.name_or_path=<fixed>", "strategy=mixed"],
}


def make(**study) -> Recipe:
    settings = {"strategies": STRATEGIES, "seeds": 3, "regimes": {"plain": [], "heavy": ["domains.a.share=3"]}}
    return parse_recipe(
        {
            "model": "policy",
            "domains": {"a": {"dataset": "a.jsonl", "verifier": "math"}},
            "trainer": {"max_steps": 4},
            "study": {**settings, **study},
        }
    )


def test_every_strategy_runs_in_every_regime_with_every_seed(tmp_path):
    runs = plan_runs(make(only={"last": ["heavy"]}), [], tmp_path)
    trained = [(run.regime, run.strategy, run.seed) for run in runs if run.strategy != "base"]
    expected = {
        (regime, strategy, seed)
        for regime in ("plain", "heavy")
        for strategy in STRATEGIES
        for seed in range(3)
        if (strategy, regime) != ("last", "plain")
    }
    assert len(trained) == len(expected) and set(trained) == expected
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)  # seed by seed
    assert len({run.directory for run in runs}) == len(runs)


def test_seeds_take_turns_on_the_checkpoints_and_each_is_evaluated_once(tmp_path):
    recipe = make(checkpoints=[["model.name_or_path=one"], ["model.name_or_path=two"]])
    runs = plan_runs(recipe, ["trainer.max_steps=2"], tmp_path)
    for run in runs:
        chosen = f"model.name_or_path={('one', 'two')[run.seed % 2]}"
        assert chosen in run.evaluation and "trainer.max_steps=2" in run.evaluation
        assert run.checkpoint == run.seed % 2
        assert not run.training or chosen in run.training
    assert [run.seed for run in runs if run.strategy == "base"] == [0, 1]


def test_a_reference_is_the_run_of_the_same_regime_and_seed(tmp_path):
    runs = {run.name: run for run in plan_runs(make(), [], tmp_path)}
    fixed = runs["heavy/fixed/seed2"]
    assert fixed.needs == ("heavy/mgs/seed2",)
    assert f"strategy={{fixed_weights: {{from: {runs['heavy/mgs/seed2'].directory}}}}}" in fixed.training
    assert "domains.a.share=3" in fixed.training and "trainer.seed=2" in fixed.training
    # A later stage is trained from another policy, but evaluated is what it became.
    assert runs["plain/last/seed0"].evaluation[-1] == f"model.name_or_path={runs['plain/last/seed0'].directory}"


def test_settings_tell_another_study_apart_but_not_a_longer_or_moved_one(tmp_path):
    def settings(recipe: Recipe, overrides: list[str], root: Path) -> dict[str, str]:
        return {run.name: run.settings for run in plan_runs(recipe, overrides, root)}

    first = settings(make(), [], tmp_path)
    assert first.items() <= settings(make(seeds=5), [], tmp_path / "elsewhere").items()
    other = settings(make(), ["trainer.max_steps=9"], tmp_path)
    assert not set(first.values()) & set(other.values())
    changed = make()
    changed.trainer["learning_rate"] = 1e-3
    assert not set(first.values()) & set(settings(changed, [], tmp_path).values())
    moved = make()
    moved.trainer["output_dir"] = "elsewhere"
    assert settings(moved, ["trainer.output_dir=elsewhere"], tmp_path / "elsewhere") == first


@pytest.mark.parametrize("name", ["lr=1e-6", "josé", "two words", "a,b", 'say "x"', "~x", "(1)", "back\\slash", "{a}"])
def test_a_study_may_be_anywhere(name, tmp_path):
    """Hydra's grammar lets few characters stand in a value unquoted."""
    root, recipe = tmp_path / name, tmp_path / "recipe.yaml"
    recipe.write_text("model: policy\ndomains: {a: {dataset: a.jsonl, eval_dataset: a.jsonl, verifier: math}}\n")
    runs = {run.name: run for run in plan_runs(make(), [], root)}
    fixed = runs["heavy/fixed/seed0"]
    loaded = load_recipe(recipe, fixed.training)
    assert loaded.trainer["output_dir"] == str(fixed.directory)
    assert loaded.strategy == {"fixed_weights": {"from": str(runs["heavy/mgs/seed0"].directory)}}
    assert load_recipe(recipe, fixed.evaluation).model.name_or_path == str(fixed.directory)


def test_no_domain_is_called_like_the_mean_of_all(tmp_path):
    recipe = make()
    recipe.domains["mean"] = recipe.domains.pop("a")
    with pytest.raises(ValueError, match="domains has the name 'mean'"):
        plan_runs(recipe, [], tmp_path)


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"strategies": {}}, "strategies is empty"),
        ({"strategies": {"mixed": ["strategy={fixed_weights: {from: <mgs>}}"]}}, "names 'mgs'"),
        ({"strategies": {"mixed": ["a=<other>"], "other": ["a=<mixed>"]}}, "circle"),
        ({"strategies": {"mixed": [], "base": []}}, "'base'"),
        ({"baseline": "nothing"}, "baseline names 'nothing'"),
        ({"contrasts": [["mgs", "ggs"]]}, "contrasts names 'ggs'"),
        ({"contrasts": [["mgs"]]}, "pair"),
        ({"only": {"mgs": ["flat"]}}, "only.mgs names 'flat'"),
        ({"only": {"mgs": ["plain"]}}, "needs 'mgs', which does not run in 'heavy'"),
        ({"sequences": [{"a": "mgs", "b": "none"}]}, "sequences names 'none'"),
        ({"seeds": 0}, "seeds is 0"),
        ({"checkpoints": []}, "checkpoints is empty"),
    ],
)
def test_what_a_study_lacks_is_said_in_a_sentence(study, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plan_runs(make(**study), [], tmp_path)


@pytest.mark.parametrize("order", range(5))
def test_no_run_comes_before_those_it_needs_and_none_twice(order, tmp_path):
    rng = random.Random(order)
    runs = plan_runs(make(), [], tmp_path)
    finished = {run.name for run in runs if not run.needs and rng.random() < 0.3}
    schedule = Schedule(runs, finished)
    running, taken = [], []
    while schedule.left:
        while len(running) < 3 and (run := schedule.take()):
            assert set(run.needs) <= schedule.finished
            running.append(run)
            taken.append(run.name)
        schedule.done(running.pop(rng.randrange(len(running))))
    assert sorted(taken) == sorted({run.name for run in runs} - finished)


def test_a_failure_takes_along_what_needs_it_and_nothing_else(tmp_path):
    runs = plan_runs(make(seeds=1, regimes={"plain": []}), [], tmp_path)
    schedule = Schedule(runs, [])
    while run := schedule.take():
        if run.strategy == "mgs":
            schedule.fail(run, "ValueError: no")
        else:
            schedule.done(run)
    assert schedule.left == 0
    assert schedule.failed == {
        "plain/mgs/seed0": "ValueError: no",
        "plain/fixed/seed0": "needs plain/mgs/seed0, which failed",
        "plain/last/seed0": "needs plain/fixed/seed0, which failed",
    }
    assert schedule.finished == {"base/base/seed0", "plain/mixed/seed0"}


def test_a_result_is_of_another_study_if_what_it_was_built_on_is(tmp_path):
    before = {run.name: run.settings for run in plan_runs(make(), [], tmp_path)}
    changed = {**STRATEGIES, "mgs": ["strategy=mgs", "trainer.granularity=tensor"]}
    after = {run.name: run.settings for run in plan_runs(make(strategies=changed), [], tmp_path)}
    differ = {name.split("/")[1] for name in before if before[name] != after[name]}
    assert differ == {"mgs", "fixed", "last"}  # last starts from fixed, whose weights are those of mgs
