"""Recipes built on recipes: what is merged, what is replaced as a whole, and hydra's groups and packages."""

from pathlib import Path

import pytest

from mgs_trl.composition import compose, override_value
from mgs_trl.recipe import DatasetSpec, Recipe, load_recipe, write_recipe
from mgs_trl.train import main

BASE = """
model: {name_or_path: some/model, dtype: float32}
strategy: {sequential: {order: [chat, math]}}
domains:
  chat:
    dataset:
      {path: hub/chat, name: part, data_files: a.parquet, schema: plain, invalid_rows: drop, columns: {prompt: q}}
    eval_dataset: held.jsonl
    verifier: {reward_model: {model: rm}}
    sampling: {top_k: 5}
  math: {dataset: rows.jsonl, verifier: [math, {brevity: {weight: 0.1}}]}
trainer: {seed: 1, max_steps: 3}
"""


def built(directory: Path, text: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe `text`, which builds on BASE."""
    (directory / "base.yaml").write_text(BASE)
    path = directory / "mine.yaml"
    path.write_text("defaults: [base, _self_]\n" + text, errors="surrogateescape")
    return load_recipe(path, overrides)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("chat", "{reward_server: {url: 'http://x'}}", {"reward_server": {"url": "http://x"}}),
        ("chat", "{reward_model: {squash: sigmoid}}", {"reward_model": {"squash": "sigmoid"}}),
        ("chat", "[math, brevity]", ["math", "brevity"]),
        ("chat", "math", "math"),
        ("math", "{reward_model: {model: rm}}", {"reward_model": {"model": "rm"}}),
    ],
)
def test_a_verifier_is_replaced_as_a_whole(tmp_path, name, text, expected):
    recipe = built(tmp_path, f"domains: {{{name}: {{verifier: {text}}}}}\n")
    assert recipe.domains[name].verifier == expected
    assert recipe.domains["chat"].sampling.top_k == 5
    assert recipe.domains["math"].dataset.path == "rows.jsonl"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{merge: {method: ties}}", {"merge": {"method": "ties"}}), ("mixed", "mixed")],
)
def test_a_strategy_is_replaced_as_a_whole(tmp_path, text, expected):
    assert built(tmp_path, f"strategy: {text}\n").strategy == expected


CHAT = DatasetSpec(
    "hub/chat", name="part", data_files="a.parquet", schema="plain", invalid_rows="drop", columns={"prompt": "q"}
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dataset: mine.jsonl", DatasetSpec("mine.jsonl")),
        ("dataset: {path: mine.jsonl, limit: 9}", DatasetSpec("mine.jsonl", limit=9)),
        ("dataset: {data_files: b.parquet}", DatasetSpec(**{**vars(CHAT), "data_files": "b.parquet"})),
        ("share: 2", CHAT),
    ],
)
def test_another_path_replaces_a_dataset_and_other_keys_refine_it(tmp_path, text, expected):
    recipe = built(tmp_path, f"domains: {{chat: {{{text}}}}}\n")
    assert recipe.domains["chat"].dataset == expected
    assert recipe.domains["chat"].eval_dataset == DatasetSpec("held.jsonl")


def test_a_dataset_given_as_a_path_can_be_refined_or_dropped(tmp_path):
    recipe = built(tmp_path, "domains: {chat: {eval_dataset: {limit: 2}}, math: {dataset: {limit: 3}}}\n")
    assert recipe.domains["chat"].eval_dataset == DatasetSpec("held.jsonl", limit=2)
    assert recipe.domains["math"].dataset == DatasetSpec("rows.jsonl", limit=3)
    assert built(tmp_path, "domains: {chat: {eval_dataset: null}}\n").domains["chat"].eval_dataset is None


def test_an_override_of_a_path_touches_the_path_alone(tmp_path):
    recipe = built(tmp_path, "", ("domains.chat.dataset.path=other/chat",))
    assert recipe.domains["chat"].dataset == DatasetSpec(**{**vars(CHAT), "path": "other/chat"})


def test_everything_else_is_merged(tmp_path):
    recipe = built(tmp_path, "model: {revision: main}\ntrainer: {max_steps: 9}\ndomains: {chat: {share: 2}}\n")
    assert (recipe.model.name_or_path, recipe.model.revision, recipe.model.dtype) == ("some/model", "main", "float32")
    assert recipe.trainer == {"seed": 1, "max_steps": 9}
    assert built(tmp_path, "trainer: {seed: '???'}\n").trainer["seed"] == 1  # left open, so what there is stays
    assert (recipe.domains["chat"].share, sorted(recipe.domains)) == (2.0, ["chat", "math"])


def test_the_order_of_the_defaults_list_says_who_wins(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "more.yaml").write_text("strategy: {single: {domain: chat}}\ntrainer: {seed: 2}\n")
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [base, optional no_such: x, _self_, more]\nstrategy: mixed\ntrainer: {seed: 3}\n")
    recipe = load_recipe(path)
    assert (recipe.strategy, recipe.trainer["seed"]) == ({"single": {"domain": "chat"}}, 2)


def test_groups_and_packages_are_hydras(tmp_path):
    """A folder beside the recipe is a group: its files are chosen by name and land under the folder's name."""
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "long.yaml").write_text("max_steps: 900\n")
    (tmp_path / "trainer" / "short.yaml").write_text("max_steps: 9\n")
    (tmp_path / "scored").mkdir()
    (tmp_path / "scored" / "served.yaml").write_text(
        "# @package domains.chat\nverifier: {reward_server: {url: http://x}}\n"
    )
    path = tmp_path / "mine.yaml"
    path.write_text("defaults: [base, trainer: long, scored: served, _self_]\n")
    assert load_recipe(path).trainer == {"seed": 1, "max_steps": 900}
    assert load_recipe(path, ["trainer=short"]).trainer == {"seed": 1, "max_steps": 9}
    assert load_recipe(path).domains["chat"].verifier == {"reward_server": {"url": "http://x"}}


def test_interpolations_of_the_base_see_the_values_of_the_whole(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE + "vars: {rm: old}\n")
    path = tmp_path / "mine.yaml"
    path.write_text(
        "defaults: [base, _self_]\nvars: {rm: new}\n"
        "domains: {chat: {verifier: {reward_model: {model: '${vars.rm}'}}}}\n"
    )
    assert load_recipe(path).domains["chat"].verifier == {"reward_model": {"model": "new"}}
    assert load_recipe(path, ["vars.rm=x"]).domains["chat"].verifier == {"reward_model": {"model": "x"}}


def test_a_text_may_hold_what_would_be_an_interpolation(tmp_path):
    """Escaped in a recipe and in an override; the recipe that a run writes means the same text again."""
    text = "domains: {math: {prompt_suffix: ' $\\${}^{2}$ and \\\\\\${vars.x}'}}\nvars: {x: 1}\n"
    recipe = built(tmp_path, text)
    assert recipe.domains["math"].prompt_suffix == " $${}^{2}$ and \\${vars.x}"
    write_recipe(recipe, tmp_path / "again.yaml")
    assert load_recipe(tmp_path / "again.yaml") == recipe
    overrides = (r'domains.chat.system_prompt="Say \${name}."', f"model={override_value('/data/${x}/policy')}")
    recipe = built(tmp_path, text, overrides)
    assert (recipe.domains["chat"].system_prompt, recipe.model.name_or_path) == ("Say ${name}.", "/data/${x}/policy")


@pytest.mark.parametrize("text", ["${name}", "${}^{2}", "${a"])
def test_how_to_write_such_a_text_is_said(tmp_path, text):
    with pytest.raises(ValueError, match=r"cannot be composed: .* Where \$\{ is meant as text, write \\\$\{\.$"):
        built(tmp_path, f"domains: {{math: {{prompt_suffix: '{text}'}}}}\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("domains: [a]\n", ["mine.yaml", "Cannot merge"]),
        ("domains: {chat: {dataset: [a]}}\n", ["domains.chat.dataset", "['a']"]),
        ("vars: {name: \udcfc}\n", ["mine.yaml", "not UTF-8"]),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, text, words):
    with pytest.raises(ValueError) as caught:
        built(tmp_path, text)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value


def test_a_file_that_is_no_mapping(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("- model\n- domains\n")
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        load_recipe(path)
    other = tmp_path / "other.yaml"
    other.write_text("defaults: [mine, _self_]\n")
    with pytest.raises(ValueError, match=r"mine\.yaml holds a list"):
        load_recipe(other)


@pytest.mark.parametrize(
    ("defaults", "words"),
    [("base", "must be a list"), ("[mine, _self_]", "in a circle"), ("[other, _self_]", "in a circle")],
)
def test_a_defaults_list_that_is_none_or_leads_back(tmp_path, defaults, words, capsys):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "other.yaml").write_text("defaults: [mine, _self_]\n")
    (tmp_path / "mine.yaml").write_text(f"defaults: {defaults}\n")
    assert main([str(tmp_path / "mine.yaml"), "--check"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: recipe mine.yaml") and words in error and error.count("\n") == 1


@pytest.mark.parametrize("place", ["site dir's", 'a "b", c', "50%$é[1]"])
def test_the_package_may_lie_anywhere(tmp_path, place):
    shipped = tmp_path / place
    shipped.mkdir()
    (shipped / "base.yaml").write_text("vars: {a: 1}\n")
    mine = tmp_path / "mine.yaml"
    mine.write_text("defaults: [base, _self_]\nvars: {b: 2}\n")
    assert compose(mine, [], shipped) == {"vars": {"a": 1, "b": 2}}


def test_a_value_given_with_a_deletion_must_be_the_one_that_is_there(tmp_path):
    assert built(tmp_path, "", ("~trainer.seed=1",)).trainer == {"max_steps": 3}
    assert built(tmp_path, "", ("~trainer.seed",)).trainer == {"max_steps": 3}
    with pytest.raises(ValueError, match=r"~trainer\.seed=2.*trainer\.seed is 1, not 2"):
        built(tmp_path, "", ("~trainer.seed=2",))
