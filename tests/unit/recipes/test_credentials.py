"""Credentials: what is written beside a run has none, and a recipe from which they were left out says so."""

import pytest
import yaml

from mgs_trl.recipe import load_recipe, parse_recipe, recipe_yaml, write_recipe
from mgs_trl.records.metrics_log import COMMAND, describe_start
from mgs_trl.records.redact import find_hidden
from mgs_trl.runs.resumed import changed_keys, warn_of_changes
from mgs_trl.runs.staged import train_strategy
from mgs_trl.train import main

RECIPE = """
model: {name_or_path: some/model, kwargs: {token: "${vars.tok}"}}
vars: {tok: "${oc.env:MGS_TRL_TEST_TOKEN}", place: here, nested: {again: "${oc.env:MGS_TRL_TEST_TOKEN}"}}
domains:
  chat:
    dataset: rows.jsonl
    prompt_suffix: "A token = a word, a secret: be brief."
    verifier:
      reward_server:
        url: ["https://me:sk-1@host/score?model=rm&api_key=sk-1", "http://other:8000"]
        headers: {Authorization: "Bearer ${vars.tok}", X-Api-Key: sk-1, Accept: json}
trainer: {hub_token: "${vars.tok}", push_to_hub: true, seed: 3, output_dir: "${vars.place}/out"}
study:
  strategies: {mixed: [], other: ["trainer.hub_token=sk-1", "trainer.seed=1"]}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("MGS_TRL_TEST_TOKEN", "sk-1")
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return load_recipe(path)


def test_a_written_recipe_has_everything_but_credentials(recipe, tmp_path):
    write_recipe(recipe, tmp_path / "recipe.yaml")
    text = (tmp_path / "recipe.yaml").read_text()
    assert "sk-1" not in text
    written = yaml.safe_load(text)
    server = written["domains"]["chat"]["verifier"]["reward_server"]
    assert server["url"] == ["https://(hidden)@host/score?model=rm&api_key=(hidden)", "http://other:8000"]
    assert server["headers"] == {"Authorization": "(hidden)", "X-Api-Key": "(hidden)", "Accept": "json"}
    assert written["domains"]["chat"]["prompt_suffix"] == "A token = a word, a secret: be brief."
    assert written["vars"] == {"tok": "(hidden)", "place": "here", "nested": {"again": "(hidden)"}}
    trainer = {"hub_token": "(hidden)", "push_to_hub": True, "seed": 3, "output_dir": "here/out"}
    assert (written["trainer"], written["model"]["kwargs"]) == (trainer, {"token": "(hidden)"})
    assert written["study"]["strategies"]["other"] == ["trainer.hub_token=(hidden)", "trainer.seed=1"]
    assert "sk-1" in recipe_yaml(recipe)  # a study's hash tells runs with other credentials apart


def test_credentials_that_are_given_again_are_no_change(recipe, tmp_path, capsys):
    write_recipe(recipe, tmp_path / "recipe.yaml")
    warn_of_changes(recipe, str(tmp_path / "checkpoint-1"))
    assert capsys.readouterr().err == ""
    recipe.trainer.update(hub_token="sk-2", output_dir="elsewhere", max_steps=9, learning_rate=1e-5)
    recipe.peft, recipe.model.dtype = {"r": 2}, None
    warn_of_changes(recipe, str(tmp_path / "checkpoint-1"))
    keys = "peft, trainer.learning_rate"
    assert capsys.readouterr().err == f"warning: the run goes on with another {keys} than in {tmp_path}/recipe.yaml.\n"


def test_changed_keys_are_dotted_and_the_nearest_that_both_have():
    before = {"strategy": "mgs", "model": {"dtype": None, "kwargs": {"a": 1}}, "domains": {"x": {}, "y": {"share": 1}}}
    now = {"strategy": {"merge": {}}, "model": {"kwargs": {"a": 2, "b": 3}}, "domains": {"y": {"share": 1.0}}}
    assert changed_keys(before, now) == ["strategy", "model.kwargs.a", "model.kwargs.b", "domains.x"]


def test_a_written_recipe_wants_its_credentials_back(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    write_recipe(recipe, path)
    server = "domains.chat.verifier.reward_server"
    given: list[str] = []
    for key, override in (
        ("model.kwargs.token", "model.kwargs.token=sk-1"),
        (f"{server}.url[0]", f"{server}.url={recipe.domains['chat'].verifier['reward_server']['url']}"),
        (f"{server}.headers.Authorization", f"{server}.headers.Authorization=Bearer sk-1"),
        (f"{server}.headers.X-Api-Key", f"{server}.headers.X-Api-Key=sk-1"),
        ("trainer.hub_token", "trainer.hub_token=sk-1"),
    ):
        with pytest.raises(ValueError) as caught:
            load_recipe(path, given)
        assert str(caught.value) == f"{key} has (hidden) where a run left out a credential; give it again."
        given.append(override)
    loaded = load_recipe(path, given)
    assert (loaded.domains, loaded.trainer, loaded.model) == (recipe.domains, recipe.trainer, recipe.model)
    # An override made of `vars`, where the credential was left out too.
    with pytest.raises(ValueError, match=r"headers\.Authorization has \(hidden\)"):
        load_recipe(path, [*given, f"{server}.headers.Authorization='Bearer ${{vars.tok}}'"])


@pytest.mark.parametrize(
    ("text", "hidden"),
    [("(hidden)", True), ("http://(hidden)@x", True), ("Bearer (hidden)", True), ("the (hidden) word", False)],
)
def test_only_what_was_left_out_counts_as_left_out(text, hidden):
    assert find_hidden({"a": [{"b": text}]}) == ("a[0].b" if hidden else None)


def test_a_stranger_recipe_loads():
    domains = {"chat": {"dataset": "x", "verifier": "math", "system_prompt": "Use the (hidden) notes; token = word."}}
    assert parse_recipe({"model": "m", "domains": domains}).domains["chat"].system_prompt is not None


def test_a_run_leaves_no_credentials(miniature, tmp_path, monkeypatch):
    output, secret = tmp_path / "out", "hf_verysecret"
    given = [
        "miniature",
        "rollout=transformers",
        "trainer.use_cpu=true",
        "trainer.per_device_train_batch_size=12",
        "trainer.num_generations=2",
        "trainer.per_device_eval_batch_size=6",
        "trainer.max_completion_length=4",
        "trainer.max_steps=1",
        "trainer.eval_on_start=false",
        f"trainer.hub_token={secret}",
        f"trainer.output_dir={output}",
    ]
    monkeypatch.setenv(COMMAND, " ".join(["python", "-m", "mgs_trl.train", *given]))
    assert main(given) == 0
    written = {path.name: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    holders = [name for name, content in written.items() if secret.encode() in content]
    assert set(holders) <= {"training_args.bin"}  # transformers' own
    assert {"recipe.yaml", "run.json"} <= set(written)
    assert b"trainer.hub_token=(hidden)" in written["run.json"]


def test_the_recipe_of_a_strategy_of_stages_has_no_credentials(miniature, tmp_path):
    overrides = [
        "strategy={sequential: {order: [math]}}",
        "rollout=transformers",
        "trainer.use_cpu=true",
        "trainer.hub_token=hf_verysecret",
        f"trainer.output_dir={tmp_path / 'out'}",
    ]
    assert train_strategy(load_recipe("miniature", overrides), lambda recipe, first: 1) == 1
    text = (tmp_path / "out" / "recipe.yaml").read_text()
    assert "hub_token: (hidden)" in text and "hf_verysecret" not in text


def test_a_start_is_recorded_without_credentials(monkeypatch):
    monkeypatch.setenv(COMMAND, "python -m mgs_trl.study x trainer.hub_token=hf_1 seeds=2")
    assert describe_start()["command"] == "python -m mgs_trl.study x trainer.hub_token=(hidden) seeds=2"
