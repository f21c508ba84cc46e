"""Every shipped recipe composes and passes `--check` offline as far as possible; built packages contain them all."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from mgs_trl import build
from mgs_trl.arguments import ELSEWHERE, build_config
from mgs_trl.check import check
from mgs_trl.domains.datasets import DomainRows, combine, load_domain
from mgs_trl.domains.templates import find_template
from mgs_trl.recipe import DatasetSpec, find_recipe, load_recipe, recipes_directory, shipped_recipes
from mgs_trl.rollouts.sampling import parse_sampling
from mgs_trl.strategies.stages import stages_of
from mgs_trl.study.miniature import miniature_dir
from mgs_trl.training.mix import DomainMix

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "data"
LOCAL_DATA = [
    f"domains.math.dataset={EXAMPLES / 'simplerl_level3to5.jsonl'}",
    f"domains.chat.dataset={EXAMPLES / 'wildchat_if.jsonl'}",
    f"domains.instruction_following.dataset={EXAMPLES / 'nemotron_if.jsonl'}",
]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    """A tokenizer without a chat template, as base models have; one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    core = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    directory = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>").save_pretrained(directory)
    return directory


def test_the_recipes_that_are_promised_are_shipped():
    assert {"miniature", "math_chat_if", "math_chat_if_llama"} <= set(shipped_recipes())
    assert recipes_directory() == ROOT / "recipes"


def _changed(fields: dict, others: dict) -> int:
    return sum(fields.get(name) != others.get(name) for name in fields.keys() | others.keys())


VARIANTS = [name for name in shipped_recipes() if "/" in name]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_from_the_base_in_what_its_name_says(name, tokenizer):
    # 16 prompts a step: the example data has fewer than 64 of a domain.
    local = [*LOCAL_DATA, f"model={tokenizer}", "trainer.gradient_accumulation_steps=4"]
    base, variant = load_recipe("math_chat_if", local), load_recipe(name, local)
    for run in stages_of(variant):
        check(run.recipe, ranks=8)
    check(variant, ranks=8)
    assert (variant.strategy != base.strategy) or _changed(variant.trainer, base.trainer) == 2
    base.strategy, base.trainer = variant.strategy, variant.trainer
    assert variant == base
    assert variant.trainer["output_dir"] == f"outputs/{name}"
    assert len(find_recipe(name).read_text().splitlines()) <= 7


def test_every_variant_trains_another_way(tokenizer):
    assert len(VARIANTS) == 19
    ways = set()
    for name in VARIANTS:
        variant = load_recipe(name)
        ways.add(str((variant.strategy, {k: v for k, v in variant.trainer.items() if k != "output_dir"})))
    assert len(ways) == len(VARIANTS)


@pytest.mark.parametrize("name", shipped_recipes())
def test_sampling_is_of_the_domains_that_a_run_has_data_of(name, monkeypatch):
    """The trainer refuses settings of a domain that it has no row of; it is asked here without its model and data."""
    monkeypatch.setattr(
        build, "load_rows", lambda domain, *_: DomainRows(domain, "plain", [{"prompt": "p", "domain": domain}])
    )
    recipe = load_recipe(name)
    for run in [stage.recipe for stage in stages_of(recipe)] or [recipe]:
        config = build_config(run, ranks=8)
        data = build.load_data(run, dict.fromkeys(run.domains))
        train, heldout = combine(data.train), combine(data.heldout) if data.heldout else None
        names = DomainMix.from_dataset(train, heldout, config).names
        sampling = parse_sampling(config).among(names)
        template = find_template(next(iter(run.domains.values())).template)
        assert all(set(template.stop) <= set(sampling.of(domain).stop) for domain in names)


@pytest.mark.parametrize("name", ["math_chat_if", "math_chat_if_llama", "math_chat_if_lora"])
def test_flagship_recipes_check_offline_and_say_what_they_could_not(name):
    plan = check(load_recipe(name), ranks=8)
    # 64 prompts a step (paper.md 2.3), a third each; the largest remainder goes to the first name.
    assert plan.quotas == {"chat": 22, "instruction_following": 21, "math": 21}
    unchecked = "\n".join(plan.unchecked)
    for domain in ("math", "chat", "instruction_following"):
        assert f"domains.{domain}.dataset" in unchecked
    assert "not reachable" in unchecked


def test_the_papers_two_domains_are_the_flagship_recipe_without_the_third():
    plan = check(load_recipe("math_chat_if", ["~domains.instruction_following"]), ranks=8)
    assert plan.quotas == {"chat": 32, "math": 32}


def test_the_documentation_lists_the_trainer_fields_that_are_refused():
    paragraph = (ROOT / "docs/recipes.md").read_text().split("In `trainer`, the fields ")[1].split(" are refused")[0]
    assert sorted(re.findall(r"`(\w+)`", paragraph)) == sorted(ELSEWHERE)


def test_the_launch_that_the_flagship_recipe_names_is_there():
    (launch,) = re.findall(r"--config_file (\S+)", find_recipe("math_chat_if").read_text())
    assert (ROOT / launch).is_file()


def test_the_flagship_recipe_has_the_papers_settings():
    """paper.md, section 2.3 (and 2.1 for the prompt, 2.2 for the data)."""
    recipe = load_recipe("math_chat_if")
    config = check(recipe, ranks=8).config
    expected = {
        "num_generations": 8,
        "temperature": 0.7,
        "top_p": 1.0,
        "max_completion_length": 4096,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "beta": 1e-3,
        "entropy_coef": 1e-3,
        "epsilon": 0.2,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "num_train_epochs": 2,
        "save_steps": 120,
        "scale_rewards": "group",
        "surgery": "pcgrad",
        "generation_kwargs": {"stop": ["</response>"]},
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert recipe.max_prompt_length == 896
    assert recipe.model.name_or_path == "Qwen/Qwen2.5-7B"
    assert {domain.template for domain in recipe.domains.values()} == {"zero_think"}


def test_the_flagship_recipe_runs_on_the_example_data(tokenizer):
    plan = check(load_recipe("math_chat_if", [*LOCAL_DATA, f"model={tokenizer}"]), ranks=8)
    assert plan.rows == {
        "math": "28 (simplerl)",
        "chat": "32 (wildchat_if)",
        "instruction_following": "28 (nemotron_if)",
    }
    assert not any("dataset" in line for line in plan.unchecked)


def test_the_other_instruction_schema_serves_as_well(tokenizer):
    overrides = [
        *LOCAL_DATA,
        f"model={tokenizer}",
        f"domains.instruction_following.dataset={EXAMPLES / 'rlvr_ifeval.jsonl'}",
    ]
    plan = check(load_recipe("math_chat_if", overrides), ranks=2)
    assert plan.rows["instruction_following"] == "32 (rlvr_ifeval)"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.jsonl")), ids=lambda path: path.stem)
def test_example_data_is_twenty_to_fifty_distinct_prompts(path):
    rows = load_domain("any", DatasetSpec(path=str(path))).rows
    assert 20 <= len({str(row["prompt"]) for row in rows}) == len(rows) <= 50


def test_the_miniature_recipe_looks_where_the_miniature_is_built(monkeypatch, tmp_path):
    monkeypatch.delenv("MGS_TRL_MINIATURE", raising=False)
    for cache in (None, str(tmp_path)):
        if cache:
            monkeypatch.setenv("MGS_TRL_CACHE", cache)
        else:
            monkeypatch.delenv("MGS_TRL_CACHE", raising=False)
        assert load_recipe("miniature").model.name_or_path == str(miniature_dir() / "policy")


def test_a_missing_miniature_is_said_before_anything_else(monkeypatch, tmp_path):
    monkeypatch.setenv("MGS_TRL_MINIATURE", str(tmp_path))
    with pytest.raises(ValueError, match=r"^model is .* but there is no such directory"):
        check(load_recipe("miniature", ["rollout=transformers"]))


def test_a_recipe_by_path_is_the_recipe_by_name():
    assert find_recipe(ROOT / "recipes" / "miniature.yaml") == find_recipe("miniature")


def test_own_verifier_example():
    script = ROOT / "examples" / "own_verifier.py"
    assert len(script.read_text().splitlines()) < 60
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT)
    assert result.stdout.splitlines() == [
        "poetry/rhymes (weight 1.0): [1.0, 0.5, None]",
        "poetry/short (weight 0.2): [1.0, 1.0, None]",
    ]


@pytest.mark.slow
def test_a_built_package_holds_every_recipe(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(command, check=True, timeout=300, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"mgs_trl/recipes/{name}.yaml" for name in shipped_recipes()} <= names


@pytest.mark.parametrize("name", VARIANTS)
def test_a_recipe_can_build_on_a_variant(name, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"defaults: [/{name}, _self_]\ntrainer: {{seed: 7}}\n")
    mine, base = load_recipe(str(path)), load_recipe(name)
    assert mine.trainer == {**base.trainer, "seed": 7} and mine.strategy == base.strategy
    assert mine.domains == base.domains
