"""Gradient surgery by module, from Gramians. Knows tensors and names, and nothing of trainers or engines.

[`resolve_conflicts`] is the whole method for any training loop; the trainer uses the same parts shard by shard.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mgs_trl.surgery.choices import check_exclude
from mgs_trl.surgery.gramian import add_gramian, add_gramians, combine, combine_all
from mgs_trl.surgery.methods import SurgeryRule, method_names
from mgs_trl.surgery.modules import GRANULARITIES, KINDS, Module, partition, partition_model
from mgs_trl.surgery.operation import Surgeon
from mgs_trl.surgery.pcgrad import pcgrad_weights, projection_order, step_generator
from mgs_trl.surgery.report import ConflictReport

__all__ = [
    "GRANULARITIES",
    "KINDS",
    "ConflictReport",
    "Module",
    "Surgeon",
    "SurgeryRule",
    "add_gramian",
    "combine",
    "method_names",
    "partition",
    "partition_model",
    "pcgrad_weights",
    "projection_order",
    "resolve_conflicts",
    "step_generator",
]


def resolve_conflicts(
    gradients: Mapping[str, Mapping[str, Tensor | None]],
    granularity: str = "tensor",
    method: str = "pcgrad",
    seed: int = 0,
    step: int = 0,
    balance: str = "none",
    exclude: Sequence[str] = (),
    top_modules: float | int | None = None,
) -> tuple[dict[str, Tensor], ConflictReport]:
    """Combine domain gradients module by module (Modular Gradient Surgery, arXiv 2602.02301).

    Args:
        gradients: for each domain, its gradients by parameter name. A name that a domain lacks, or has as None, counts
            as a zero gradient there.
        granularity: `global`, `layer`, `block` or `tensor`.
        method: `pcgrad`, `none`, `observe`, or another rule of `method_names()`.
        seed, step: fix the projection order; pass the same on every rank.
        balance: `none`, `domain` or `module`: equal norms before surgery.
        exclude: kinds of module that get the plain sum (after balancing); at `layer` only embedding and head.
        top_modules: of the others, surgery only on those of largest gradient norm: how many (int) or which share
            (float).

    Returns:
        The combined gradient by parameter name, in each parameter's own shape and dtype, on its own device; and the
        report of the step.

    Raises:
        ValueError: no domains or no gradients, gradients of one name that differ in shape, an unknown option.

    Example:
        >>> g, h = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
        >>> combined, report = resolve_conflicts({"math": {"w": g}, "chat": {"w": h}})
        >>> combined["w"]
        tensor([0.5000, 1.5000])
    """
    if not gradients:
        raise ValueError("gradients is empty, but resolve_conflicts needs the gradients of at least one domain.")
    check_exclude("exclude", exclude, granularity)
    rule = SurgeryRule(method, balance, tuple(exclude), top_modules, seed)
    domains = sorted(gradients)
    present = {n: g for d in domains for n, g in gradients[d].items() if g is not None}
    names = [name for name in dict.fromkeys(n for d in domains for n in gradients[d]) if name in present]
    if not names:
        raise ValueError("gradients has no gradient of any parameter: all domains are empty or None.")
    modules = partition(names, granularity)
    rows = {name: [_flat(gradients[d].get(name), present[name], d, name) for d in domains] for name in names}
    module_of = {name: m for m, module in enumerate(modules) for name in module.parameters}
    gramian = torch.zeros(len(modules), len(domains), len(domains), dtype=torch.float64)
    for device in dict.fromkeys(gradient.device for gradient in present.values()):
        here = [name for name in names if present[name].device == device]
        part = torch.zeros_like(gramian, device=device)
        add_gramians(part, [rows[name] for name in here], [module_of[name] for name in here])
        gramian += part.cpu()
    report = Surgeon(domains, modules, rule).decide(gramian, step)
    weights = report.weights.tolist()
    combined = {name: torch.empty_like(present[name], memory_format=torch.contiguous_format) for name in names}
    flat = [out.view(-1) for out in combined.values()]
    combine_all(flat, [rows[name] for name in names], [weights[module_of[name]] for name in names])
    return combined, report


def _flat(gradient: Tensor | None, like: Tensor, domain: str, name: str) -> Tensor:
    if gradient is None:
        return torch.zeros_like(like, memory_format=torch.contiguous_format).view(-1)
    if gradient.shape != like.shape:
        raise ValueError(
            f"the gradient of {name!r} has shape {tuple(gradient.shape)} in domain {domain!r}, but "
            f"{tuple(like.shape)} elsewhere; shapes must agree."
        )
    return gradient.detach().reshape(-1)
