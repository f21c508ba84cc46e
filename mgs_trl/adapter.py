"""Adapters: a recipe's `peft:` as a PEFT configuration, and an adapter turned into a policy of its own."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgs_trl.recipe import did_you_mean

if TYPE_CHECKING:
    from peft import PeftConfig

ADAPTER = "adapter"  # where `fold_adapter` keeps the adapter itself
_FILES = ("adapter_config.json", "adapter_model.safetensors")


def holds_adapter(directory: Path) -> bool:
    """Whether a run saved an adapter in `directory`, not a whole policy."""
    return (directory / _FILES[0]).is_file()


def remove_adapter(directory: Path) -> None:
    """A whole policy was saved in `directory`: an adapter that an earlier run left would be loaded in its place."""
    for name in _FILES:
        (directory / name).unlink(missing_ok=True)


def adapter_config(spec: Mapping[str, Any] | None) -> "PeftConfig | None":
    """PEFT's configuration of what a recipe's `peft:` asks for; None for full fine-tuning.

    Args:
        spec: fields of PEFT's configuration class, and `peft_type`, which is LORA unless given.

    Raises:
        ValueError: an unknown type or field, or one that PEFT refuses.
    """
    if spec is None:
        return None
    from peft import TaskType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    types = {str(kind.value): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    kind = spec.get("peft_type", "LORA")
    if kind not in types:
        raise ValueError(f"peft.peft_type is {kind!r}, but it must be one of PEFT's types." + did_you_mean(kind, types))
    known = [field.name for field in dataclasses.fields(types[kind]) if field.init]
    for name in spec:
        if name not in known and name != "peft_type":
            raise ValueError(f"peft has the unknown field {name!r} for {kind}." + did_you_mean(name, known))
    fields = {name: value for name, value in spec.items() if name != "peft_type"}
    try:
        return types[kind](**{"task_type": TaskType.CAUSAL_LM, **fields})
    except (TypeError, ValueError) as error:
        raise ValueError(f"peft: {' '.join(str(error).split())}") from error


def fold_adapter(directory: Path, base: str, revision: str | None = None) -> None:
    """Make the adapter that was trained into `directory` a whole policy: the base with the adapter merged into it.

    The adapter itself moves to `directory/adapter`. One process only.

    Args:
        directory: what the run saved; it holds an adapter.
        base: the policy that the adapter was trained on, a directory or hub id.
        revision: of the base.
    """
    from mgs_trl.strategies.merge import merge_experts

    kept = directory / ADAPTER
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for name in _FILES:
        shutil.copy2(directory / name, kept)
    for path in directory.glob("*token*"):
        shutil.copy2(path, kept)
    merge_experts(base, {"": str(kept)}, directory, revision=revision)
