"""Versions of a policy's weights in a directory that trainer and servers share.

A version is a folder of safetensors shards and a manifest with each shard's checksum. It is written under a temporary
name and renamed, so that a reader sees whole versions only; it outlives any server.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save

BACKEND = "mgs_directory"  # our weight transfer's name in vLLM
#: Environment variable of a server: the directory whose newest version it loads in place of its checkpoint.
DIRECTORY_VARIABLE = "MGS_WEIGHT_DIR"
MANIFEST = "manifest.json"
#: The directory's name in a run's own unless another is given; transformers uploads nothing that begins with `_`.
DEFAULT_NAME = "_served_weights"


class DamagedWeightsError(ValueError):
    """A version whose bytes are not those that were written."""


@dataclass(frozen=True)
class WeightVersion:
    """One published version.

    Attributes:
        number: counts up within the directory.
        path: its folder.
    """

    number: int
    path: Path

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor of every parameter, one shard in memory at a time.

        Raises:
            DamagedWeightsError: a shard is missing or its checksum is another.
        """
        for shard, checksum in json.loads((self.path / MANIFEST).read_text())["shards"].items():
            try:
                content = (self.path / shard).read_bytes()
            except FileNotFoundError:
                raise DamagedWeightsError(f"weights {self.path} lack the shard {shard}.") from None
            if zlib.crc32(content) != checksum:
                raise DamagedWeightsError(
                    f"weights {self.path / shard} have the checksum {zlib.crc32(content):08x}, but their manifest "
                    f"says {checksum:08x}."
                )
            yield from load(content).items()


class WeightDirectory:
    """The directory. It has one writer and any number of readers.

    Args:
        path: created when first written to.
        keep: versions that stay when a newer one is written; one more than the newest, so that a reader who has
            just begun can finish.
        shard_bytes: a shard is closed when it has this many bytes; what the writer holds in memory.
    """

    def __init__(self, path: str | os.PathLike, keep: int = 2, shard_bytes: int = 1 << 30):
        self.path, self.keep, self.shard_bytes = Path(path).absolute(), keep, shard_bytes

    def versions(self) -> list[WeightVersion]:
        """All whole versions, the newest last."""
        found = (folder for folder in self.path.glob("v*") if (folder / MANIFEST).is_file())
        return sorted((WeightVersion(int(f.name[1:]), f) for f in found), key=lambda version: version.number)

    def newest(self) -> WeightVersion | None:
        """The newest whole version, None without any."""
        return max(self.versions(), key=lambda version: version.number, default=None)

    def publish(self, weights: Iterable[tuple[str, torch.Tensor]]) -> WeightVersion:
        """Write the next version and remove those that are too old.

        Args:
            weights: name and tensor of every parameter; a tensor need only live until the next is asked for.
        """
        newest = self.newest()
        number = newest.number + 1 if newest else 1
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob(".writing-*"):
            shutil.rmtree(leftover)
        folder = self.path / f".writing-{number:08d}"
        folder.mkdir()
        shards: dict[str, int] = {}
        for tensors in _shards(weights, self.shard_bytes):
            content = save(tensors)
            name = f"shard-{len(shards):05d}.safetensors"
            shards[name] = zlib.crc32(content)
            _write(folder / name, content)
        _write(folder / MANIFEST, json.dumps({"version": number, "shards": shards}).encode())
        version = WeightVersion(number, self.path / f"v{number:08d}")
        folder.rename(version.path)
        for old in self.versions()[: -self.keep]:
            shutil.rmtree(old.path)
        return version


def _shards(weights: Iterable[tuple[str, torch.Tensor]], limit: int) -> Iterator[dict[str, torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in weights:
        # A gathered or merged parameter is valid during its turn only.
        tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
        size += tensors[name].nbytes
        if size >= limit:
            yield tensors
            tensors, size = {}, 0
    if tensors:
        yield tensors


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
