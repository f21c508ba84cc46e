"""A recipe's files and overrides put together: hydra's defaults lists and override grammar, with merging of our own.

Hydra merges all mappings. That would mix the options of two verifiers, or make one of two strategies of a recipe that
builds on another, so what means something only as a whole is replaced as a whole.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

DATASETS = ("dataset", "eval_dataset")


def compose(path: Path, overrides: Sequence[str], shipped: Path) -> dict[str, Any]:
    """The file and its defaults list merged, overrides applied, interpolations resolved.

    Args:
        path: the recipe.
        overrides: hydra overrides.
        shipped: a second directory in which the recipes of defaults lists are looked for.

    Raises:
        ValueError: an override or a file that does not fit, or a value that is left open.
    """
    parsed = [_parse_override(text) for text in overrides]
    groups = [str(o.input_line) for o in parsed if _chooses_file(o, path.parent)]
    try:
        content = _merge_files(path, groups, shipped)
        for override in parsed:
            if str(override.input_line) not in groups:
                _apply(content, override)
        resolved = OmegaConf.to_container(OmegaConf.create(content), resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ValueError(f"recipe {path.name} leaves {error.full_key} open (???); give it a value.") from None
    except (HydraException, OmegaConfBaseException) as error:
        meant = isinstance(error, GrammarParseError | InterpolationResolutionError)
        hint = r" Where ${ is meant as text, write \${." if meant else ""
        raise ValueError(f"recipe {path.name} cannot be composed: {first_line(error)}{hint}") from None
    except Exception as error:  # a YAML error has a module of its own under hydra's loader
        if type(error).__module__.split(".")[0] != "yaml":
            raise
        raise ValueError(f"recipe {path.name} is not valid YAML: {' '.join(str(error).split())}.") from None
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def literal(value: Any) -> Any:
    """Plain data in which no text is an interpolation any more: OmegaConf reads it as it stands here."""
    if isinstance(value, Mapping):
        return {key: literal(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [literal(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def override_value(path: Path | str) -> str:
    """A path or a name as the value of a hydra override: quoted where hydra's grammar asks for it."""
    text = literal(str(path))
    if re.fullmatch(r"[A-Za-z0-9_/.+-]+", text):
        return text
    quoted = re.sub(r'(\\*)"', r'\1\1\\"', text)  # hydra reads a backslash as such unless a quote follows
    return f'"{quoted}"'


def first_line(error: Exception) -> str:
    """The message of an error of hydra or OmegaConf as one sentence."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    end = 2 if lines[0].endswith(":") else 1  # hydra's first line may only announce the second
    return " ".join(lines[:end]).rstrip(".") + "."


def _merge_files(path: Path, groups: Sequence[str], shipped: Path) -> dict[Any, Any]:
    """What the files of the defaults list come to, in hydra's order; interpolations are kept."""
    search = f"hydra.searchpath=[{override_value(f'file://{shipped}')}]"  # lets any recipe build on a shipped one
    with initialize_config_dir(str(path.parent), job_name="mgs_trl", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        try:
            defaults = loader.compute_defaults_list(path.stem, [*groups, search], RunMode.RUN).defaults
        except RecursionError:
            raise ValueError(f"recipe {path.name} builds on itself: its defaults go in a circle.") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"recipe {path.name}, or one that it builds on, is not UTF-8 text: {error}.") from None
        except ValueError as error:  # a defaults list that is none
            raise ValueError(f"recipe {path.name} cannot be composed: {first_line(error)}") from None
    content: dict[Any, Any] = {}
    for default in defaults:
        if default.config_path and not default.config_path.startswith("hydra/"):
            over = _read(default.config_path, default.package, (path.parent, shipped))
            _make_room(content, over)
            try:
                merged = OmegaConf.to_container(OmegaConf.merge(content, over))
            except OmegaConfBaseException as error:
                raise ValueError(
                    f"recipe {default.config_path}.yaml does not fit those it builds on: {first_line(error)}"
                ) from None
            assert isinstance(merged, dict)
            content = merged
    return content


def _read(name: str, package: str | None, directories: Sequence[Path]) -> dict[Any, Any]:
    """One file, at the place in the recipe that hydra's package says."""
    relative = name.removesuffix(".yaml") + ".yaml"
    file = next(directory / relative for directory in directories if (directory / relative).is_file())
    content = OmegaConf.to_container(OmegaConf.load(file))
    if not isinstance(content, dict):
        raise ValueError(f"recipe {file.name} holds a {type(content).__name__}, but it must be a mapping.")
    content = {key: value for key, value in content.items() if key not in ("defaults", "hydra")}
    for key in reversed(package.split(".") if package else []):
        content = {key: content}
    return content


def _make_room(under: dict[Any, Any], over: dict[Any, Any]) -> None:
    """Remove from `under` what `over` replaces as a whole: a strategy, a verifier, and a dataset by another path."""
    if "strategy" in over:
        under.pop("strategy", None)
    domains, others = under.get("domains"), over.get("domains")
    if not isinstance(domains, dict) or not isinstance(others, dict):
        return
    for name, theirs in others.items():
        ours = domains.get(name)
        if not isinstance(ours, dict) or not isinstance(theirs, dict):
            continue
        if "verifier" in theirs:
            ours.pop("verifier", None)
        for key in [key for key in DATASETS if key in theirs]:
            if not isinstance(theirs[key], dict) or "path" in theirs[key]:
                ours.pop(key, None)
            elif isinstance(ours.get(key), str):  # the shorthand, refined
                ours[key] = {"path": ours[key]}


def _chooses_file(override: Override, directory: Path) -> bool:
    """Whether an override picks a file of a folder beside the recipe (hydra's config groups), not a value of it."""
    names = [path.stem for path in (directory / override.key_or_group).glob("*.yaml")]
    return override.value() in names


def _parse_override(text: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ValueError(f"override {text!r} is not key=value in hydra's grammar: {first_line(error)}") from None
    if override.is_sweep_override():
        raise ValueError(f"override {text!r} is a sweep; a run needs one value.")
    return override


def _apply(content: dict[Any, Any], override: Override) -> None:
    """Set or delete one key. Hydra itself would ask for `+` before each key that the YAML leaves at its default, and
    could not reach into a model or dataset given as a string; the schema check that follows finds misspelt keys."""
    *parents, last = override.key_or_group.split(".")
    node: Any = content
    for depth, key in enumerate(parents):
        inner = node.get(key)
        if inner is None:  # absent, or written out as null
            inner = node[key] = {}
        if isinstance(inner, str) and parents[: depth + 1] == ["model"]:
            inner = node[key] = {"name_or_path": inner}
        elif isinstance(inner, str) and key in DATASETS:
            inner = node[key] = {"path": inner}
        elif not isinstance(inner, dict):
            where = ".".join(parents[: depth + 1])
            raise ValueError(f"override {override.input_line!r} does not fit: {where} is {inner!r}, not a mapping.")
        node = inner
    if override.is_delete():
        _delete(node, last, override)
    else:
        node[last] = override.value()


def _delete(node: dict[Any, Any], key: str, override: Override) -> None:
    """As hydra, a value that is given with `~` must be the one that is there."""
    if key not in node:
        raise ValueError(f"override {override.input_line!r} deletes a key that the recipe does not have.")
    expected = override.value()
    if expected is not None and node[key] != expected:
        raise ValueError(
            f"override {override.input_line!r} deletes nothing: {override.key_or_group} is {node[key]!r}, "
            f"not {expected!r}."
        )
    del node[key]
