"""PCGrad from Gramians: the weights of the domain gradients, for all modules at once.

Yu et al., "Gradient Surgery for Multi-Task Learning" (arXiv 2001.06782), algorithm 1. A projected gradient stays a
combination of the originals, `g_i' = sum_j c_j g_j`, and every inner product in the algorithm is one with an original
gradient, `<g_i', g_j> = (c G)_j`. So the Gramian decides everything and the long vectors are never touched.
"""

import random

import torch
from torch import Tensor


def step_generator(seed: int, step: int) -> torch.Generator:
    """CPU generator of optimizer step `step`: the same on every rank, different for every (seed, step)."""
    generator = torch.Generator()
    # A string seed is hashed whole, so neighbouring seeds and steps share nothing.
    generator.manual_seed(random.Random(f"{seed}/{step}").getrandbits(63))
    return generator


def projection_order(modules: int, domains: int, generator: torch.Generator) -> Tensor:
    """In which order each domain gradient is projected against the others, drawn per module.

    Returns:
        int64 `[modules, domains, domains - 1]`: for module m and domain i, a random order of the other domains.
    """
    keys = torch.rand(modules, domains, domains, generator=generator, dtype=torch.float64)
    keys.diagonal(dim1=1, dim2=2).fill_(2.0)  # a domain itself sorts last and is cut off
    return keys.argsort(dim=-1)[..., : domains - 1]


def pcgrad_weights(gramian: Tensor, order: Tensor) -> Tensor:
    """Weights w such that PCGrad's result on module m is `sum_d w[m, d] g_d`.

    Args:
        gramian: float64 `[modules, domains, domains]`.
        order: int64 `[modules, domains, domains - 1]` from `projection_order`.

    Returns:
        float64 `[modules, domains]`; exactly one where nothing conflicts.
    """
    modules, domains, _ = gramian.shape
    coefficients = torch.eye(domains, dtype=gramian.dtype).expand(modules, domains, domains).clone()
    norms = gramian.diagonal(dim1=1, dim2=2)
    for i in range(domains):
        for k in range(domains - 1):
            other = order[:, i, k]
            column = gramian.gather(2, other[:, None, None].expand(modules, domains, 1)).squeeze(2)
            inner = (coefficients[:, i] * column).sum(-1)
            norm = norms.gather(1, other[:, None]).squeeze(1)
            conflict = (inner < 0) & (norm > 0)
            step = torch.where(conflict, inner / torch.where(conflict, norm, 1.0), 0.0)
            coefficients[:, i].scatter_add_(1, other[:, None], -step[:, None])
    return coefficients.sum(1)
