"""Adapters: as PEFT configurations from a recipe's `peft:`, as files, and merged into their base."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgs_trl.policies.saved import CONFIG
from mgs_trl.recipe import did_you_mean

if TYPE_CHECKING:
    from peft import PeftConfig

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def holds_adapter(directory: Path) -> bool:
    """Whether a run saved an adapter in `directory`, not a whole policy."""
    return (directory / ADAPTER_FILES[0]).is_file()


def remove_adapter(directory: Path) -> None:
    """A whole policy was saved in `directory`: an adapter that an earlier run left would be loaded in its place."""
    for name in ADAPTER_FILES:
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


def merge_adapter(base: str, adapter: Path, target: Path) -> None:
    """Save the base with one adapter merged into it, in float32, with a configuration that says the base's dtype."""
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True)
    dtype = model.dtype
    tied = {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}
    try:
        with torch.random.fork_rng(devices=[]):  # PEFT initializes an adapter before it loads it
            adapted = PeftModel.from_pretrained(model.float(), str(adapter))
        for name, module in model.named_modules():
            if isinstance(module, BaseTunerLayer) and f"{name}.weight" in tied:
                raise ValueError(f"it adapts {name}, whose weight is tied to another's")
        whole: Any = adapted.merge_and_unload()
    except (AttributeError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"the adapter {str(adapter)!r} cannot be merged into {base!r}: {reason}.") from error
    whole.save_pretrained(target)
    config = target / CONFIG[0]
    fields = {**json.loads(config.read_text()), "dtype": str(dtype).removeprefix("torch.")}
    config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
