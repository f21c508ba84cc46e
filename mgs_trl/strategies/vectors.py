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
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mgs_trl.recipe import did_you_mean

if TYPE_CHECKING:
    import torch

METHODS = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties")
#: Density unless given, of the methods that have one: what the TIES paper recommends, and half for DARE.
DENSITY = {"ties": 0.2, "dare_linear": 0.5, "dare_ties": 0.5}


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


def merge_rule(
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
