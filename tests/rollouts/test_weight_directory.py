"""Versions of weights in a directory: whole, checked, few."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mgs_trl.rollouts.weight_directory import DamagedWeightsError, WeightDirectory


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layer.{i}": torch.randn(7, 5, generator=generator).to(torch.bfloat16) for i in range(6)}


def test_version_holds_every_tensor_in_shards_of_the_size_asked_for(tmp_path):
    version = WeightDirectory(tmp_path / "w", shard_bytes=140).publish(weights(0).items())
    torch.testing.assert_close(dict(version.tensors()), weights(0), rtol=0, atol=0)
    shards = sorted(version.path.glob("*.safetensors"))
    assert len(shards) == 3  # 70 bytes a tensor
    read = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}  # by safetensors itself
    torch.testing.assert_close(read, weights(0), rtol=0, atol=0)


def test_numbers_go_on_and_old_versions_go(tmp_path):
    for number in range(1, 5):
        assert WeightDirectory(tmp_path, keep=2).publish(weights(number).items()).number == number
    directory = WeightDirectory(tmp_path)
    assert [version.number for version in directory.versions()] == [3, 4]
    newest = directory.newest()
    assert newest is not None
    torch.testing.assert_close(dict(newest.tensors()), weights(4), rtol=0, atol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v00000003", "v00000004"]


def test_interrupted_write_leaves_the_newest_whole_version(tmp_path):
    directory = WeightDirectory(tmp_path, shard_bytes=140)
    directory.publish(weights(1).items())

    def breaks_off():
        yield from list(weights(2).items())[:4]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        directory.publish(breaks_off())
    assert [version.number for version in directory.versions()] == [1]
    assert directory.publish(weights(2).items()).number == 2
    assert not list(tmp_path.glob(".*"))


def test_tensors_that_are_reused_by_the_iterator_are_copied(tmp_path):
    shared = torch.zeros(3)

    def gathered():
        for value in (1.0, 2.0):
            shared.fill_(value)
            yield f"p{value:g}", shared

    version = WeightDirectory(tmp_path).publish(gathered())
    assert {name: tensor.tolist() for name, tensor in version.tensors()} == {"p1": [1.0] * 3, "p2": [2.0] * 3}


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_damage_is_found(tmp_path, damage):
    version = WeightDirectory(tmp_path).publish(weights(0).items())
    shard = version.path / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        shard.write_bytes(content)
    elif damage == "cut":
        shard.write_bytes(content[:-10])
    else:
        shard.unlink()
    with pytest.raises(DamagedWeightsError, match="shard-00000"):
        dict(version.tensors())
    assert json.loads((version.path / "manifest.json").read_text())["version"] == 1
