"""Float64 brute force on whole vectors: the definitions, written as plainly as possible."""

import numpy as np


def pcgrad(vectors: list[np.ndarray], order: list[list[int]]) -> np.ndarray:
    """Algorithm 1 of arXiv 2001.06782 on float64 vectors, with given inner orders; the sum of projected gradients.

    Args:
        vectors: the domain gradients.
        order: for each domain, the order in which the others are projected out.
    """
    vectors = [np.asarray(v, dtype=np.float64).ravel() for v in vectors]
    total = np.zeros_like(vectors[0])
    for i, original in enumerate(vectors):
        projected = original.copy()
        for j in order[i]:
            inner = projected @ vectors[j]
            if inner < 0:
                projected -= inner / (vectors[j] @ vectors[j]) * vectors[j]
        total += projected
    return total


def modular_pcgrad(
    gradients: list[dict[str, np.ndarray]], modules: list[tuple[str, ...]], order: np.ndarray
) -> dict[str, np.ndarray]:
    """PCGrad on each module's concatenated parameters.

    Args:
        gradients: per domain, by parameter name.
        modules: parameter names of each module.
        order: `[modules, domains, domains - 1]`.
    """
    combined = {}
    for m, names in enumerate(modules):
        vectors = [np.concatenate([np.asarray(g[n], np.float64).ravel() for n in names]) for g in gradients]
        whole = pcgrad(vectors, order[m].tolist())
        start = 0
        for name in names:
            shape = np.shape(gradients[0][name])
            size = int(np.prod(shape))
            combined[name] = whole[start : start + size].reshape(shape)
            start += size
    return combined


def relative_error(value, reference) -> float:
    """Norm of the difference over the norm of the reference."""
    value, reference = np.asarray(value, np.float64).ravel(), np.asarray(reference, np.float64).ravel()
    scale = np.linalg.norm(reference)
    return float(np.linalg.norm(value - reference) / scale) if scale > 0 else float(np.linalg.norm(value))
