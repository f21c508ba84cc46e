"""Policies on disk: reading their tensors one by one, and writing a new one that no reader ever sees in parts."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG = ("config.json", "generation_config.json")
TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "spiece.model",
    "sentencepiece*", "chat_template*", "additional_chat_templates*", "*processor_config.json",
)  # fmt: skip


def holds_weights(directory: Path) -> bool:
    """Whether a whole policy was saved in `directory`."""
    return (directory / WEIGHTS).is_file() or (directory / INDEX).is_file()


class SavedPolicy:
    """Tensors of a saved policy by name, each read from its file when it is asked for."""

    def __init__(self, directory: Path):
        from safetensors import SafetensorError, safe_open

        self.place = str(directory)
        files = [WEIGHTS]
        if not (directory / WEIGHTS).is_file():
            if not (directory / INDEX).is_file():
                raise ValueError(f"{self.place!r} holds neither {WEIGHTS} nor {INDEX}, so there is nothing to merge.")
            files = sorted(set(json.loads((directory / INDEX).read_text())["weight_map"].values()))
        self._files: dict[str, Any] = {}
        for file in files:
            try:
                opened = safe_open(directory / file, framework="pt")
            except (OSError, SafetensorError) as error:
                raise ValueError(f"{self.place!r} has weights in {file}, which cannot be read: {error}.") from error
            self._files.update(dict.fromkeys(opened.keys(), opened))

    def names(self, tied: Mapping[str, str]) -> list[str]:
        """All but the tied tensors whose source is there too; a policy may be saved with or without them."""
        import torch

        for name, source in tied.items():
            both = name in self._files and source in self._files
            if both and not torch.equal(self.read(name), self.read(source)):
                raise ValueError(f"{self.place!r} has a {name} unlike {source}, but its configuration ties them.")
        return [name for name in self._files if tied.get(name) not in self._files]

    def shape(self, name: str) -> list[int]:
        return self._files[name].get_slice(name).get_shape()

    def read(self, name: str) -> "torch.Tensor":
        return self._files[name].get_tensor(name)


def tied_tensors(directory: Path) -> dict[str, str]:
    """Tensors that the policy's configuration ties to another, by name."""
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config: Any = AutoConfig.from_pretrained(directory) if (directory / CONFIG[0]).is_file() else None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{str(directory)!r} holds no {CONFIG[0]} of a causal language model, so it is no policy.")
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):  # not `from_config`, which under ZeRO-3 would wait for other ranks
        return dict(model(config).all_tied_weights_keys)


def directory_of(base: str, revision: str | None) -> Path:
    """Where the base's files are, after a download if need be."""
    from huggingface_hub import snapshot_download

    if Path(base).is_dir():
        return Path(base)
    wanted = ["model*.safetensors", INDEX, *CONFIG, *TOKENIZER]
    try:
        return Path(snapshot_download(base, revision=revision, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"the base {base!r} is neither a directory nor a model that can be had: {reason}.") from error


def write_tensors(
    sizes: Mapping[str, int], tensor: Callable[[str], "torch.Tensor"], folder: Path, shard_bytes: int
) -> None:
    """Write tensors, made when their file is written, with transformers' names and index; `sizes` are in bytes."""
    from huggingface_hub import split_state_dict_into_shards_factory
    from safetensors.torch import save_file

    plan = split_state_dict_into_shards_factory(
        dict(sizes), get_storage_size=int, filename_pattern="model{suffix}.safetensors", max_shard_size=shard_bytes
    )
    for file, names in plan.filename_to_tensors.items():
        save_file({name: tensor(name) for name in names}, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def copy_files(source: Path, target: Path, patterns: Iterable[str]) -> None:
    """Copy the files and directories of `source` that match one of the glob `patterns`."""
    for path in (path for pattern in patterns for path in source.glob(pattern)):
        if path.is_dir():
            shutil.copytree(path, target / path.name)
        else:
            shutil.copy2(path, target)


def remove_weights(out: Path) -> None:
    """Remove an older policy's weights, which may be in other files than those to come; first what it loads by."""
    (out / CONFIG[0]).unlink(missing_ok=True)
    for old in out.glob("model*.safetensors*"):
        old.unlink()


def config_last(directory: Path) -> list[Path]:
    """What is in a directory, in an order in which no part of a policy loads before the whole of it is there."""
    return sorted(directory.iterdir(), key=lambda path: path.name == CONFIG[0])


def deliver(done: Path, out: Path) -> None:
    """Move a whole policy to `out` in an order in which no part of it, and no mixture with an older one, loads."""
    remove_weights(out)
    for path in config_last(done):
        shutil.rmtree(out / path.name, ignore_errors=True)  # a directory of chat templates, which rename cannot replace
        path.rename(out / path.name)
