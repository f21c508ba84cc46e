"""The two passes over memory: inner products of the domain gradients, and their combination."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Elements of each gradient that are in flight at once. Small enough for a core's cache on a CPU, large enough that
# kernel launches do not count on a GPU.
CHUNK = {"cpu": 1 << 15}
DEVICE_CHUNK = 1 << 24


def _chunk(device: torch.device) -> int:
    return CHUNK.get(device.type, DEVICE_CHUNK)


def add_gramian(out: Tensor, gradients: Sequence[Tensor]) -> None:
    """Add the inner products of some gradients to `out`.

    Products are taken and summed in float64: decisions depend on the sign of inner products, and nearly opposite
    gradients cancel in the result.

    Args:
        out: float64 `[T, T]`, on the device where the products are to be computed.
        gradients: T one-dimensional tensors of equal length, of any floating dtype and on any device.
    """
    length = gradients[0].numel()
    size = min(_chunk(out.device), length)
    scratch = torch.empty(len(gradients), size, dtype=torch.float64, device=out.device)
    for start in range(0, length, size):
        stop = min(start + size, length)
        part = scratch[:, : stop - start]
        for row, gradient in zip(part, gradients, strict=True):
            row.copy_(gradient[start:stop])
        out.addmm_(part, part.T)


def combine(out: Tensor, gradients: Sequence[Tensor], weights: Sequence[float]) -> None:
    """Write `sum_d weights[d] * gradients[d]` into `out`.

    Where all weights are one the result is the plain sum, added in order in `out`'s own precision. Otherwise the sum
    is taken in float64 and rounded once. A gradient of weight zero is not read, so it may hold anything.

    Args:
        out: one-dimensional; may be one of the gradients.
        gradients: T one-dimensional tensors as long as `out`.
        weights: T numbers.
    """
    plain = all(weight == 1.0 for weight in weights)
    terms = [(g, weight) for g, weight in zip(gradients, weights, strict=True) if weight != 0.0]
    length = out.numel()
    size = min(_chunk(out.device), length)
    total = torch.empty(size, dtype=out.dtype if plain else torch.float64, device=out.device)
    other = torch.empty_like(total)
    for start in range(0, length, size):
        stop = min(start + size, length)
        acc, term = total[: stop - start], other[: stop - start]
        acc.zero_()
        for i, (gradient, weight) in enumerate(terms):
            if i == 0:
                acc.copy_(gradient[start:stop])
                if not plain:
                    acc.mul_(weight)
            else:
                term.copy_(gradient[start:stop])
                acc.add_(term, alpha=weight)
        out[start:stop].copy_(acc)
