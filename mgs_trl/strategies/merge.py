"""Merging: one policy out of experts that were each trained on a domain of their own, without further training.

With `theta_0` the policy that all experts started from, `theta_d` expert `d`, `tau_d = theta_d - theta_0` its task
vector, and `w_d` its weight, tensor by tensor:

| method | merged tensor | weights unless given |
|---|---|---|
| `linear` | `sum_d w_d theta_d / sum_d w_d`, a model soup (arXiv 2203.05482) | 1 each |
| `task_arithmetic` | `theta_0 + sum_d w_d tau_d` (arXiv 2212.04089) | 1 / number of experts |
| `ties` | `theta_0 + TIES` of trimmed `tau_d` (arXiv 2306.01708) | 1 each |
| `dare_linear` | as `task_arithmetic`, of `tau_d` dropped out by DARE (arXiv 2311.03099) | 1 / number of experts |
| `dare_ties` | as `ties`, with DARE's dropout in place of trimming | 1 each |

Trimming keeps the `floor(density * size)` largest magnitudes of a tensor and makes the others 0. DARE keeps an element
with probability `density`, divided by `density`, which leaves its expectation as it was. TIES elects the sign of each
element, that of `sum_d w_d tau_d` (plus where that is 0), and sums the `w_d tau_d` of that sign, divided by *how many*
there are, not by their weights. So weights of 1 are the paper's mean, and equal weights are its scale lambda. PEFT
elects by `sum_d tau_d` instead; for equal weights that is the same.
"""

import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgs_trl.adapter import remove_adapter
from mgs_trl.recipe import did_you_mean
from mgs_trl.strategies.saved_policy import (
    CONFIG,
    TOKENIZER,
    SavedPolicy,
    copy_files,
    deliver,
    directory_of,
    tied_tensors,
    write_tensors,
)

if TYPE_CHECKING:
    import torch

METHODS = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties")
#: Density unless given, of the methods that have one: what the TIES paper recommends, and half for DARE.
DENSITY = {"ties": 0.2, "dare_linear": 0.5, "dare_ties": 0.5}
SHARD_BYTES = 5 * 10**9  # a shard is in memory until it is written

_ADAPTER = "adapter_config.json"


def check_merge(
    method: str, weights: Mapping[str, float] | None, density: float | None, experts: Iterable[str]
) -> None:
    """Check the options of a merge. Reads no file; `experts` are their domains.

    Raises:
        ValueError: an unknown method, weights that are not one finite number for each expert (or sum to 0 for `linear`,
            which divides by the sum), or a density outside (0, 1] or of a method that has none.
    """
    domains = list(experts)
    if method not in METHODS:
        raise ValueError(
            f"strategy.merge.method is {method!r}, but it must be one of {', '.join(METHODS)}."
            + did_you_mean(method, METHODS)
        )
    if not domains:
        raise ValueError("strategy.merge.experts is empty, but a merge needs at least one expert.")
    if weights is not None:
        _check_weights(method, weights, domains)
    if density is None:
        return
    if method not in DENSITY:
        raise ValueError(
            f"strategy.merge.density is {density!r}, but {method} has none; only {', '.join(DENSITY)} have one."
        )
    if not _is_number(density) or not 0 < density <= 1:
        raise ValueError(f"strategy.merge.density is {density!r}, but it must be a number above 0 and at most 1.")


def _check_weights(method: str, weights: Any, domains: Sequence[str]) -> None:
    if not isinstance(weights, Mapping):
        raise ValueError(f"strategy.merge.weights is {weights!r}, but it must map each domain to a number.")
    for domain in weights:
        if domain not in domains:
            raise ValueError(
                f"strategy.merge.weights names {domain!r}, but there are only experts of {', '.join(domains)}."
                + did_you_mean(domain, domains)
            )
    for domain in domains:
        if domain not in weights:
            raise ValueError(f"strategy.merge.weights has none for {domain!r}, but each expert needs one.")
        if not _is_number(weights[domain]):
            raise ValueError(f"strategy.merge.weights.{domain} is {weights[domain]!r}, but it must be a finite number.")
    if method == "linear" and math.isclose(sum(weights.values()), 0, abs_tol=1e-9):
        raise ValueError(f"strategy.merge.weights is {dict(weights)!r}, but for linear their sum must not be 0.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


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
        method: one of `METHODS`; definitions at the top of this file. All arithmetic is float32.
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
    import torch

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
            with torch.random.fork_rng(devices=[]):  # PEFT initializes an adapter before it loads it
                for folder, target in zip(folders, whole, strict=True):
                    _fold(str(origin), folder, target)
        policies = [SavedPolicy(folder) for folder in whole]
        like = start if adapters and start else policies[0]
        names = _common_names(policies, start, tied_tensors(whole[0]))
        merge = _merge_of(method, weights, density, seed, list(experts))
        sizes = {name: like.read(name).nbytes for name in names}
        write_tensors(sizes, lambda name: _merged(name, policies, start, like, merge), done, shard_bytes)
        copy_files(whole[0], done, CONFIG)
        bare = adapters and not any(folders[0].glob("tokenizer*"))
        copy_files(origin if origin and bare else folders[0], done, TOKENIZER)
        deliver(done, out)
        remove_adapter(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _merge_of(
    method: str, weights: Mapping[str, float] | None, density: float | None, seed: int, experts: Sequence[str]
) -> Callable[..., "torch.Tensor"]:
    """`merge_tensors` with all options and their defaults, for a tensor's name, the experts' tensors and the base's."""
    share = 1 / len(experts) if method in ("task_arithmetic", "dare_linear") else 1.0
    values = [share if weights is None else weights[domain] for domain in experts]
    kept = DENSITY.get(method) if density is None else density

    def merge(name: str, tensors: Sequence["torch.Tensor"], base: "torch.Tensor | None") -> "torch.Tensor":
        # A seed by name, so that no shard layout changes the masks.
        own = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")
        return merge_tensors(tensors, base, method, values, kept, own)

    return merge


def merge_tensors(
    tensors: Sequence["torch.Tensor"],
    base: "torch.Tensor | None",
    method: str,
    weights: Sequence[float],
    density: float | None = None,
    seed: int = 0,
) -> "torch.Tensor":
    """One tensor of all experts, merged by the definitions at the top of this file: float32, of their shape.

    Args:
        tensors: one for each expert, float32 and of one shape.
        base: what they started from; only `linear` does without.
        weights: one for each expert.
        density: of the methods that have one.
        seed: of DARE's masks. Torch's global generator is left as it was.
    """
    import torch
    from peft.utils import merge_utils

    scale = torch.tensor([float(weight) for weight in weights])
    if method == "linear":
        return merge_utils.task_arithmetic(list(tensors), scale / math.fsum(weights))
    assert base is not None
    vectors = [tensor - base for tensor in tensors]
    if method == "task_arithmetic":
        return base + merge_utils.task_arithmetic(vectors, scale)
    assert density is not None
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The density")  # PEFT warns that a density of 1 keeps everything
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the accelerators too
        if method == "dare_linear":
            return base + merge_utils.dare_linear(vectors, scale, density)
        # Weighted first: PEFT would elect the signs without the weights. Neither trimming nor DARE sees the difference.
        vectors = [vector * weight for vector, weight in zip(vectors, scale, strict=True)]
        merge = merge_utils.ties if method == "ties" else merge_utils.dare_ties
        return base + merge(vectors, torch.ones(len(vectors)), density)


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


def _fold(base: str, adapter: Path, target: Path) -> None:
    """Save the base with one adapter merged into it, in float32, with a configuration that says the base's dtype."""
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True)
    dtype = model.dtype
    tied = {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}
    try:
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


def _are_adapters(experts: Mapping[str, str]) -> bool:
    for domain, folder in experts.items():
        if not Path(folder).is_dir():
            raise ValueError(f"strategy.merge.experts.{domain} is {folder!r}, but that is not a directory.")
    adapters = [domain for domain, folder in experts.items() if (Path(folder) / _ADAPTER).is_file()]
    others = [domain for domain in experts if domain not in adapters]
    if adapters and others:
        raise ValueError(
            f"strategy.merge.experts has adapters ({', '.join(adapters)}) and full weights ({', '.join(others)}), but "
            "all must be of one form."
        )
    return bool(adapters)
