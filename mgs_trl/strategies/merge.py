"""Merging saved policies: experts, each trained on a domain of its own, become one policy without further training."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mgs_trl.policies.adapter import ADAPTER_FILES, holds_adapter, merge_adapter, remove_adapter
from mgs_trl.policies.saved import (
    CONFIG,
    TOKENIZER,
    SavedPolicy,
    copy_files,
    deliver,
    directory_of,
    tied_tensors,
    write_tensors,
)
from mgs_trl.strategies.vectors import check_merge, merge_rule

if TYPE_CHECKING:
    import torch

ADAPTER = "adapter"  # where `fold_adapter` keeps the adapter itself
SHARD_BYTES = 5 * 10**9  # a shard is in memory until it is written


def merge_experts(
    base: str,
    experts: Mapping[str, str],
    out: str | Path,
    method: str = "linear",
    weights: Mapping[str, float] | None = None,
    density: float | None = None,
    seed: int = 0,
    revision: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Merge experts into one policy and save it whole: safetensors, configuration and tokenizer. CPU, one process.

    Adapters (of any kind that PEFT can merge, of different ranks too) are first merged into the base, each on its own
    and in float32, so that the methods see the same task vectors (`scaling * B @ A` for LoRA) as of experts with full
    weights. No method acts on `A` and `B` separately, as PEFT's `add_weighted_adapter` does for all of its methods but
    `cat` and the truncated `*_svd`. That takes 4 bytes per parameter of memory, and of `out`'s disk for each expert.

    Args:
        base: directory or hub id of the policy that the experts started from. `linear` does not read it for experts
            with full weights.
        experts: directory of each domain's policy. All hold full weights in safetensors, or all hold a PEFT adapter.
        out: directory of the merged policy. Other files in it stay; an older policy there is replaced, and its
            config.json, without which nothing loads it, is written last. Tensors have the dtype of the first expert, or
            for adapters of the base. Configuration and tokenizer are the first expert's; the tokenizer is the base's if
            an adapter has none beside it.
        method: one of `METHODS`; definitions in vectors.py. All arithmetic is float32.
        weights: by domain, of any sign; the default depends on the method.
        density: share of each task vector that is kept; `DENSITY` unless given.
        seed: of DARE's masks. They also depend on the tensor's name and on the place of the expert among `experts`, and
            on nothing else.
        revision: of the base, where it is a hub id.
        shard_bytes: largest size of a file, in bytes, unless a single tensor is larger.

    Raises:
        ValueError: options that do not fit (`check_merge`), a directory that holds no such policy, experts or a base
            that differ in their tensors, or a merged tensor that is not finite.
    """
    check_merge(method, weights, density, experts)
    folders, out = [Path(directory) for directory in experts.values()], Path(out)
    adapters = _are_adapters(experts)
    if out.resolve() in [folder.resolve() for folder in (*folders, Path(base))]:
        raise ValueError(f"the merged policy is to be saved in {str(out)!r}, which is the directory of one it reads.")
    origin = directory_of(base, revision) if adapters or method != "linear" else None
    start = None if origin is None else SavedPolicy(origin)
    work = out / ".merging"
    whole = [work / str(number) for number in range(len(folders))] if adapters else folders
    done = work / "merged"
    shutil.rmtree(work, ignore_errors=True)
    try:
        done.mkdir(parents=True)
        if adapters:
            for folder, target in zip(folders, whole, strict=True):
                merge_adapter(str(origin), folder, target)
        policies = [SavedPolicy(folder) for folder in whole]
        like = start if adapters and start else policies[0]
        names = _common_names(policies, start, tied_tensors(whole[0]))
        merge = merge_rule(method, weights, density, seed, list(experts))
        sizes = {name: like.read(name).nbytes for name in names}
        write_tensors(sizes, lambda name: _merged(name, policies, start, like, merge), done, shard_bytes)
        copy_files(whole[0], done, CONFIG)
        bare = adapters and not any(folders[0].glob("tokenizer*"))
        copy_files(origin if origin and bare else folders[0], done, TOKENIZER)
        deliver(done, out)
        remove_adapter(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def fold_adapter(directory: Path, base: str, revision: str | None = None) -> None:
    """Make the adapter that was trained into `directory` a whole policy: the base with the adapter merged into it.

    The adapter itself moves to `directory/adapter`. One process only.

    Args:
        directory: what the run saved; it holds an adapter.
        base: the policy that the adapter was trained on, a directory or hub id.
        revision: of the base.
    """
    kept = directory / ADAPTER
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for name in ADAPTER_FILES:
        shutil.copy2(directory / name, kept)
    for path in directory.glob("*token*"):
        shutil.copy2(path, kept)
    merge_experts(base, {"": str(kept)}, directory, revision=revision)


def _merged(
    name: str,
    policies: Sequence[SavedPolicy],
    start: SavedPolicy | None,
    like: SavedPolicy,
    merge: Callable[..., "torch.Tensor"],
) -> "torch.Tensor":
    """The merged tensor of a name, in the dtype that it has in `like`."""
    tensors = [policy.read(name) for policy in policies]
    before = None if start is None else start.read(name)
    if not all(tensor.is_floating_point() for tensor in tensors):
        if any(tensor.dtype != tensors[0].dtype or not tensor.equal(tensors[0]) for tensor in tensors):
            raise ValueError(f"{name} is not floating-point, so it must be the same in all experts, but it is not.")
        return tensors[0]
    if any(tensor.dtype.itemsize < 2 for tensor in tensors):
        raise ValueError(f"{name} is of a floating-point type of 8 bits, but quantized weights cannot be merged.")
    dtype = before.dtype if before is not None and like is start else tensors[0].dtype
    merged = merge(name, [tensor.float() for tensor in tensors], None if before is None else before.float()).to(dtype)
    if not merged.isfinite().all():
        raise ValueError(f"the merged {name} is not finite in {dtype}, so an expert or the weights are too large.")
    return merged


def _common_names(policies: Sequence[SavedPolicy], start: SavedPolicy | None, tied: Mapping[str, str]) -> list[str]:
    """Names of the experts' tensors, which are the same for all, and of the same shapes as in the base."""
    first, names = policies[0], policies[0].names(tied)
    for policy in (*policies[1:], *([start] if start else [])):
        known = policy.names(tied)
        missing = [name for name in names if name not in known]
        # A base may have more, such as buffers that older versions saved.
        extra = [] if policy is start else [name for name in known if name not in names]
        for name in (*missing, *extra):
            has, lacks = (first, policy) if missing else (policy, first)
            raise ValueError(f"{has.place!r} has the tensor {name}, but {lacks.place!r} has not.")
        for name in names:
            shapes = first.shape(name), policy.shape(name)
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"{name} is of shape {shapes[0]} in {first.place!r}, but {shapes[1]} in {policy.place!r}."
                )
    return names


def _are_adapters(experts: Mapping[str, str]) -> bool:
    for domain, folder in experts.items():
        if not Path(folder).is_dir():
            raise ValueError(f"strategy.merge.experts.{domain} is {folder!r}, but that is not a directory.")
    adapters = [domain for domain, folder in experts.items() if holds_adapter(Path(folder))]
    others = [domain for domain in experts if domain not in adapters]
    if adapters and others:
        raise ValueError(
            f"strategy.merge.experts has adapters ({', '.join(adapters)}) and full weights ({', '.join(others)}), but "
            "all must be of one form."
        )
    return bool(adapters)
