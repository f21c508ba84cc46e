"""Recipes: composition, types, overrides, and one clear sentence for whatever is wrong (issue: Bad input)."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mgs_trl.recipe import DatasetSpec, find_recipe, load_recipe, parse_recipe, recipe_yaml, shipped_recipes

SMALL = {"model": "some/model", "strategy": "mgs", "domains": {"math": {"dataset": "rows.jsonl", "verifier": "math"}}}


@pytest.fixture
def small(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def test_shorthands_and_defaults(small):
    recipe = load_recipe(small)
    assert recipe.model.name_or_path == "some/model"
    assert recipe.model.trust_remote_code is False
    assert recipe.domains["math"].dataset.path == "rows.jsonl"
    assert recipe.domains["math"].share == 1.0
    assert (recipe.strategy, recipe.rollout) == ("mgs", "auto")


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("trainer.max_steps=5", lambda r: r.trainer["max_steps"], 5),
        ("trainer.learning_rate=1e-6", lambda r: r.trainer["learning_rate"], 1e-6),
        ("domains.math.share=2", lambda r: r.domains["math"].share, 2.0),
        ("domains.math.dataset=other.csv", lambda r: r.domains["math"].dataset.path, "other.csv"),
        ("domains.math.dataset={path: a, split: test}", lambda r: r.domains["math"].dataset.split, "test"),
        ("+domains.math.eval_dataset=b.jsonl", lambda r: r.domains["math"].eval_dataset.path, "b.jsonl"),
        ("domains.chat={dataset: c.jsonl, verifier: brevity}", lambda r: sorted(r.domains), ["chat", "math"]),
        ("domains.math.sampling.stop=[a,b]", lambda r: r.domains["math"].sampling.stop, ["a", "b"]),
        ("model.revision=main", lambda r: (r.model.name_or_path, r.model.revision), ("some/model", "main")),
        ("domains.math.dataset.limit=3", lambda r: r.domains["math"].dataset, DatasetSpec("rows.jsonl", limit=3)),
        ("domains.math.dataset='${oc.env:MGS_TRL_TEST}/a'", lambda r: r.domains["math"].dataset.path, "there/a"),
    ],
)
def test_hydra_overrides(small, override, read, expected, monkeypatch):
    monkeypatch.setenv("MGS_TRL_TEST", "there")
    assert read(load_recipe(small, [override])) == expected


def test_override_deletes(small):
    recipe = load_recipe(small, ["domains.chat={dataset: c.jsonl, verifier: math}", "~domains.math"])
    assert list(recipe.domains) == ["chat"]


def test_a_path_given_for_a_dataset_forgets_the_old_datasets_settings(tmp_path):
    content = {**SMALL, "domains": {"math": {"dataset": {"path": "hub/id", "name": "x"}, "verifier": "math"}}}
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(content))
    dataset = load_recipe(path, ["domains.math.dataset=local.jsonl"]).domains["math"].dataset
    assert (dataset.path, dataset.name) == ("local.jsonl", None)


def test_a_recipe_can_build_on_a_shipped_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [math_chat_if, _self_]\ntrainer: {seed: 7}\n")
    recipe = load_recipe(path)
    assert recipe.trainer["seed"] == 7
    assert recipe.model.name_or_path == load_recipe("math_chat_if").model.name_or_path


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("domains.math.shar=2", ["domains.math.shar", "share"]),
        ("rolout=vllm", ["rolout", "rollout"]),
        ("domains.math.sampling.temprature=1", ["domains.math.sampling.temprature", "temperature"]),
        ("domains.math._target_=os.system", ["domains.math._target_"]),
        ("domains.math.share=0", ["domains.math.share", "0", "greater than 0"]),
        ("domains.math.share=-1", ["domains.math.share", "-1.0", "greater than 0"]),
        ("domains.math.share=inf", ["domains.math.share", "greater than 0"]),
        ("domains.math.share=much", ["domains.math.share", "much"]),
        ("domains.math.dataset=[a]", ["domains.math.dataset", "['a']"]),
        ("domains.math.dataset.limit=0", ["domains.math.dataset", "limit"]),
        ("domains.math.dataset={path: a, invalid_rows: skip}", ["invalid_rows", "skip", "drop"]),
        ("domains.math.dataset.name=x", ["domains.math.dataset.name", "'x'", "'rows.jsonl' is local"]),
        ("domains.math.dataset.revision=x", ["domains.math.dataset.revision", "'x'", "hub"]),
        ("domains.math.eval_dataset={path: b.csv, data_files: x}", ["domains.math.eval_dataset.data_files", "'x'"]),
        ("domains.math.dataset={path: /tmp, data_files: x}", ["domains.math.dataset.data_files", "'/tmp' is local"]),
        ("domains.chat={dataset: x}", ["domains.chat.verifier"]),
        ("domains.chat=null", ["domains.chat", "None"]),
        ("domains.a/b={dataset: x, verifier: math}", ["a/b"]),
        ("domains={false: {dataset: x, verifier: math}}", ["domains has the name False", "bool", "in quotes"]),
        ("domains={1: {dataset: x, verifier: math}}", ["domains has the name 1", "int", "in quotes"]),
        ("~domains.math", ["domains is empty"]),
        ("rollout=vlm", ["rollout", "'vlm'", "vllm"]),
        ("max_prompt_length=0", ["max_prompt_length", "0"]),
        ("trainer=3", ["trainer"]),
        ("domains=[a]", ["domains", "['a']"]),
        ("strategy.x=1", ["strategy.x=1", "'mgs'"]),
        ("~domains.chat", ["~domains.chat", "does not have"]),
        ("rollout=vllm,transformers", ["sweep"]),
        ("model=null", ["model"]),
        ("model=${oc.env:MGS_TRL_NOT_SET}", ["MGS_TRL_NOT_SET"]),
        ("trainer.max_steps=[3", ["trainer.max_steps=[3"]),
    ],
)
def test_bad_recipes_are_one_sentence_with_field_and_value(small, override, words):
    with pytest.raises(ValueError) as caught:
        load_recipe(small, [override])
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("miniatur", ["miniatur", "Did you mean 'miniature'?"]),
        ("no/such.yaml", ["no/such.yaml", "not an existing file"]),
        ("baselines/mixed.yaml", ["not an existing file", "Did you mean 'baselines/mixed'?"]),
        ("recipes/baselines/mixed.yaml", ["Did you mean 'baselines/mixed'?"]),
        ("./recipes/miniature.yaml", ["Did you mean 'miniature'?"]),
        ("recipes/baselines/mixed", ["Did you mean 'baselines/mixed'?"]),
        ("recipes/mixed.yml", ["not a file ending in .yaml"]),
        ("recipes/miniature.yml", ["miniature.yml"]),
    ],
)
def test_unknown_recipes(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        find_recipe(name)
    assert all(word in str(caught.value) for word in words)


def test_defaults_that_do_not_fit_say_why(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [miniature, _self_]\ndomains: [a]\n")
    with pytest.raises(ValueError, match="Cannot merge"):
        load_recipe(path)
    path.write_text("defaults: [no_such_recipe, _self_]\n")
    with pytest.raises(ValueError, match="no_such_recipe"):
        load_recipe(path)


def test_broken_yaml_names_the_line(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("model: a\ndomains: [\n")
    with pytest.raises(ValueError, match="line 3"):
        load_recipe(path)


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_resolved_recipe_loads_to_the_same_recipe(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_yaml(recipe))
    assert load_recipe(path) == recipe


def test_parsing_runs_no_code(tmp_path):
    """A verifier's module is not imported by loading the recipe that names it."""
    (tmp_path / "bomb.py").write_text("raise RuntimeError('imported')\n")
    sys.path.insert(0, str(tmp_path))
    try:
        recipe = parse_recipe(
            {**SMALL, "domains": {"d": {"dataset": "x", "verifier": "bomb:f"}}, "trainer": {"_target_": "bomb.f"}}
        )
    finally:
        sys.path.remove(str(tmp_path))
    assert recipe.domains["d"].verifier == "bomb:f"
    assert "bomb" not in sys.modules


def test_loading_a_recipe_imports_neither_torch_nor_trl():
    code = (
        "import sys; from mgs_trl.recipe import load_recipe; load_recipe('math_chat_if'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'trl', 'transformers', 'datasets')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def test_what_the_resolved_recipe_writes_as_null_may_still_be_set(small, tmp_path):
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe_yaml(load_recipe(str(small))))
    changed = load_recipe(str(path), ["peft.r=8", "study.seeds=2", "domains.math.eval_dataset.path=x"])
    assert changed.peft == {"r": 8}
    assert changed.study is not None and changed.study.seeds == 2
    assert changed.domains["math"].eval_dataset.path == "x"
