"""Recipes: composed YAML, checked against a typed schema, turned into one `Recipe`.

A recipe is data. Loading one imports nothing it names and runs nothing; the only code a recipe can bring in is a
verifier written as `package.module:function` (or a class), and that is imported when verifiers are built.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from mgs_trl.composition import compose, first_line, literal
from mgs_trl.records.redact import HIDDEN, find_hidden, redact_recipe
from mgs_trl.rollouts.settings import ServerSettings

ROLLOUTS = ("auto", "vllm", "server", "transformers")
INVALID_ROWS = ("error", "drop")
DATA_FILES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass
class ModelSpec:
    """The policy. `name_or_path` is a directory or a hub id; `kwargs` go to `from_pretrained`."""

    name_or_path: str = MISSING
    revision: str | None = None
    dtype: str | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class DatasetSpec:
    """Where a domain's rows come from.

    Attributes:
        path: a local `.json`, `.jsonl`, `.parquet` or `.csv` file, a directory saved by `datasets`, or a hub id.
        name, revision, data_files: which part of a hub dataset; other data has none of them.
        split: in the grammar of `datasets`, such as `train[:1000]`; a file has the split `train` alone.
        schema: how its columns become ours (`mgs_trl.domains.datasets.SCHEMAS`); default: told by the columns.
        columns: renames before the schema is applied, `{ours: theirs}`.
        invalid_rows: `error`, or `drop` rows that their verifier cannot score (they are counted and logged).
        limit: use only the first rows.
    """

    path: str = MISSING
    name: str | None = None
    split: str = "train"
    revision: str | None = None
    data_files: str | None = None
    schema: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    invalid_rows: str = "error"
    limit: int | None = None


@dataclass
class SamplingSpec:
    """How completions of a domain are drawn; None is the trainer's value."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_completion_length: int | None = None
    stop: list[str] | None = None
    stop_completes: bool | None = None


@dataclass
class DomainSpec:
    """One domain: its data, its prompt, its verifiers, its share of every batch, its sampling.

    Attributes:
        verifier: a name, `{name: {option: value}}`, `package.module:function` (or a class), or a list of these.
        share: share of the prompts of every optimizer step, relative to the other domains' shares.
        template: prompt template, `default` (the tokenizer's chat template) or `zero_think`.
        system_prompt: a system message put before every prompt.
        prompt_suffix: text appended to the last user message of every prompt.
    """

    dataset: DatasetSpec = MISSING
    verifier: Any = MISSING
    eval_dataset: DatasetSpec | None = None
    share: float = 1.0
    template: str = "default"
    system_prompt: str | None = None
    prompt_suffix: str | None = None
    sampling: SamplingSpec = field(default_factory=SamplingSpec)


@dataclass
class StudySpec:
    """What `python -m mgs_trl.study` compares. Names map to overrides of the recipe.

    Attributes:
        strategies: in an override, `<name>` is the directory of that strategy's run of the same regime and seed.
        baseline: the strategy that the others are compared with.
        contrasts: further pairs `[a, b]` of strategies; reported is a minus b.
        sequences: for strategies that train domain after domain, the domains and the strategy after each of them.
        regimes: settings under which every strategy runs; without any, the recipe as it is, named `default`.
        only: the regimes of a strategy, where it does not run in all.
        checkpoints: policies to start from, as overrides; seed k starts from checkpoint k modulo their number.
        seeds: each strategy runs with the seeds 0 to `seeds` - 1.
        evaluations: of a trained policy on the held-out prompts; its score is their mean.
        workers: runs at a time; None is one per GPU, or one per core without any.
    """

    strategies: dict[str, list[str]] = field(default_factory=dict)
    baseline: str = "mixed"
    contrasts: list[list[str]] = field(default_factory=list)
    sequences: list[dict[str, str]] = field(default_factory=list)
    regimes: dict[str, list[str]] = field(default_factory=dict)
    only: dict[str, list[str]] = field(default_factory=dict)
    checkpoints: list[list[str]] = field(default_factory=lambda: [[]])
    seeds: int = 5
    evaluations: int = 1
    workers: int | None = None

    def __post_init__(self) -> None:
        self.regimes = self.regimes or {"default": []}


@dataclass
class Recipe:
    """Everything that one training run needs.

    Attributes:
        peft: the adapter that is trained, in PEFT's fields, such as `{r: 16, target_modules: all-linear}`; its
            `peft_type` is LORA unless given. None trains all parameters.
        strategy: how the domains are trained together (`mgs_trl.strategies`): a name, or `{name: {option: value}}`.
        rollout: `vllm` (inside the training processes), `server`, `transformers`, or `auto` for vLLM where it is
            installed.
        server: the servers of `rollout: server`.
        max_prompt_length: rows with longer prompts (tokens) are dropped, counted and logged; None keeps all.
        trainer: any field of `MGSConfig`.
        vars: values of the recipe's own, used as `${vars.name}`.
        study: the runs that `python -m mgs_trl.study` compares; a single run ignores it.
    """

    model: ModelSpec = MISSING
    domains: dict[str, DomainSpec] = MISSING
    peft: dict[str, Any] | None = None
    strategy: Any = "mgs"
    rollout: str = "auto"
    server: ServerSettings | None = None
    max_prompt_length: int | None = None
    trainer: dict[str, Any] = field(default_factory=dict)
    vars: dict[str, Any] = field(default_factory=dict)
    study: StudySpec | None = None


def did_you_mean(name: Any, allowed: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest of `allowed`, or nothing."""
    near = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def recipes_directory() -> Path:
    """The directory of the shipped recipes: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent
    for directory in (package / "recipes", package.parent / "recipes"):
        if directory.is_dir():
            return directory
    raise FileNotFoundError(f"the shipped recipes are neither in {package} nor beside it")


def shipped_recipes() -> list[str]:
    """Names of the shipped recipes, those in folders as `folder/name`."""
    root = recipes_directory()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def find_recipe(recipe: str | os.PathLike) -> Path:
    """The file of a recipe given by path or by shipped name.

    Raises:
        ValueError: there is none.
    """
    path = Path(recipe).expanduser()
    if path.suffix == ".yaml" and path.is_file():
        return path.resolve()
    name = str(recipe)
    if path.suffix or path.is_absolute() or len(path.parts) > 2:
        problem = "is not an existing file" if path.suffix == ".yaml" else "is not a file ending in .yaml"
        raise ValueError(f"recipe {name!r} {problem}." + _did_you_mean_shipped(path))
    if name not in shipped_recipes():
        raise ValueError(
            f"recipe {name!r} is neither a file ending in .yaml nor a shipped recipe ({', '.join(shipped_recipes())})."
            + did_you_mean(name, shipped_recipes())
        )
    return (recipes_directory() / f"{name}.yaml").resolve()


def _did_you_mean_shipped(path: Path) -> str:
    """A hint where a path that leads nowhere has the name of a shipped recipe."""
    name = path.with_suffix("").as_posix().removeprefix("./").removeprefix("recipes/")
    return f" Did you mean {name!r}?" if name in shipped_recipes() else ""


def load_recipe(recipe: str | os.PathLike, overrides: Sequence[str] = ()) -> Recipe:
    """Compose, type and check a recipe.

    Args:
        recipe: a path, or the name of a shipped recipe.
        overrides: hydra overrides, such as `trainer.max_steps=5`, `domains.math.share=2` or `~domains.chat`.

    Raises:
        ValueError: anything wrong with it, in one sentence.
    """
    path = find_recipe(recipe)
    return parse_recipe(compose(path, overrides, recipes_directory()))


def parse_recipe(content: Mapping[str, Any]) -> Recipe:
    """A typed recipe from plain data (what the YAML holds).

    Raises:
        ValueError: anything wrong with it, in one sentence.
    """
    used = {key: value for key, value in content.items() if key not in ("vars", "study")}  # a run reads neither
    if (hidden := find_hidden(used)) is not None:
        raise ValueError(f"{hidden} has {HIDDEN} where a run left out a credential; give it again.")
    merged = _typed(literal(_expand(content)))
    recipe = OmegaConf.to_object(merged)
    assert isinstance(recipe, Recipe)
    recipe.model.name_or_path = os.path.expanduser(recipe.model.name_or_path)
    _check_values(recipe)
    return recipe


def output_of(recipe: Recipe, default: str = "trainer_output") -> Path:
    """The directory that a recipe's run writes to, `~` expanded and the default as in transformers."""
    return Path(str(recipe.trainer.get("output_dir") or default)).expanduser()


def recipe_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML, credentials and all; loading it gives the same recipe."""
    return OmegaConf.to_yaml(OmegaConf.create(literal(dataclasses.asdict(recipe))))


def shown_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML, without its credentials."""
    return OmegaConf.to_yaml(OmegaConf.create(literal(redact_recipe(dataclasses.asdict(recipe)))))


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe without its credentials: what is in a run's directory is passed on and uploaded."""
    path.write_text(shown_yaml(recipe))


def _expand(content: Mapping[str, Any]) -> dict[str, Any]:
    """Shorthands written out: a model or dataset given as a string is its `name_or_path` or `path`."""
    result = dict(content)
    if isinstance(result.get("model"), str):
        result["model"] = {"name_or_path": result["model"]}
    domains = result.get("domains", {})
    if not isinstance(domains, Mapping):
        raise ValueError(f"domains is {domains!r}, but it must map each domain's name to its settings.")
    result["domains"] = {name: _expand_domain(name, spec) for name, spec in domains.items()}
    return result


def _expand_domain(name: Any, spec: Any) -> Any:
    if not isinstance(name, str):
        raise ValueError(
            f"domains has the name {name!r}, which YAML reads as {type(name).__name__}, but a name must be text; "
            "write it in quotes."
        )
    if not isinstance(spec, Mapping):
        raise ValueError(f"domains.{name} is {spec!r}, but it must be a mapping with at least dataset and verifier.")
    result = dict(spec)
    for key in ("dataset", "eval_dataset"):
        value = result.get(key)
        if isinstance(value, str):
            result[key] = {"path": value}
        elif value is not None and not isinstance(value, Mapping):
            raise ValueError(f"domains.{name}.{key} is {value!r}, but it must be a path, a hub id or a mapping.")
    if "sampling" in result and result["sampling"] is None:
        del result["sampling"]
    return result


def _typed(content: Mapping[str, Any]) -> DictConfig:
    """The content merged into the schema; OmegaConf's errors become sentences."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Recipe), content)
        missing = OmegaConf.missing_keys(merged)
    except ConfigKeyError as error:
        allowed = [f.name for f in dataclasses.fields(error.object_type or Recipe)]
        raise ValueError(
            f"recipe has the unknown key {error.full_key!r}; allowed here: {', '.join(allowed)}."
            + did_you_mean(error.key, allowed)
        ) from None
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise ValueError(f"recipe: {where}{first_line(error)}") from None
    if missing:
        raise ValueError(f"recipe lacks {min(missing)!r}, which has no default.")
    assert isinstance(merged, DictConfig)
    return merged


def _check_values(recipe: Recipe) -> None:
    """What types cannot say and needs no other package."""
    if not recipe.domains:
        raise ValueError("domains is empty, but a recipe needs at least one domain.")
    _check_choice("rollout", recipe.rollout, ROLLOUTS)
    if (recipe.rollout == "server") != (recipe.server is not None):
        has = "without" if recipe.server is None else "with"
        raise ValueError(f"rollout is {recipe.rollout!r} {has} the key server, but rollout: server and it go together.")
    if recipe.max_prompt_length is not None and recipe.max_prompt_length < 1:
        raise ValueError(f"max_prompt_length is {recipe.max_prompt_length}, but it must be at least 1 token.")
    for name, domain in recipe.domains.items():
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ValueError(
                f"domain {name!r} has a name with other characters than letters, digits, '_', '-' and '.'."
            )
        if not 0 < domain.share < float("inf"):
            raise ValueError(f"domains.{name}.share is {domain.share!r}, but it must be a number greater than 0.")
        for key in ("dataset", "eval_dataset"):
            if (spec := getattr(domain, key)) is not None:
                _check_dataset(f"domains.{name}.{key}", spec)


def _check_dataset(where: str, spec: DatasetSpec) -> None:
    _check_choice(f"{where}.invalid_rows", spec.invalid_rows, INVALID_ROWS)
    if spec.limit is not None and spec.limit < 1:
        raise ValueError(f"{where}.limit is {spec.limit}, but it must be at least 1 row.")
    path = Path(spec.path).expanduser()
    for field_name in ("name", "revision", "data_files"):
        value = getattr(spec, field_name)
        if value is not None and (path.suffix in DATA_FILES or path.is_dir()):
            raise ValueError(
                f"{where}.{field_name} is {value!r}, but only a dataset of the hub has it and {spec.path!r} is local."
            )


def _check_choice(where: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(
            f"{where} is {value!r}, but it must be one of {', '.join(allowed)}." + did_you_mean(value, allowed)
        )
