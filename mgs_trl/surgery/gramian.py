"""The two passes over memory: inner products of the domain gradients, and their combination."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Elements of each gradient that are in flight at once: few enough for a core's cache on a CPU, enough on a GPU that
# kernel launches do not count.
CPU_CHUNK = 1 << 17
DEVICE_CHUNK = 1 << 24


def _chunk(device: torch.device) -> int:
    return CPU_CHUNK if device.type == "cpu" else DEVICE_CHUNK


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
        # Row by row: BLAS is an order of magnitude faster at this than at a [T, n] x [n, T] product.
        for total, row in zip(out, part, strict=True):
            total += torch.mv(part, row)


def combine(out: Tensor, gradients: Sequence[Tensor], weights: Sequence[float]) -> None:
    """Write `sum_d weights[d] * gradients[d]` into `out`.

    Where all weights are one the result is the plain sum, added in order in `out`'s own precision. Otherwise the sum
    is taken in float64 and rounded once. A gradient of weight zero is not read, so it may hold anything.

    Args:
        out: one-dimensional; may be one of the gradients.
        gradients: T one-dimensional tensors as long as `out`.
        weights: T numbers.
    """
    if all(weight == 1.0 for weight in weights):
        _plain_sum(out, gradients)
        return
    terms = [(g, weight) for g, weight in zip(gradients, weights, strict=True) if weight != 0.0]
    if not terms:
        out.zero_()
        return
    size = min(_chunk(out.device), out.numel())
    scratch = torch.empty(len(terms), size, dtype=torch.float64, device=out.device)
    vector = torch.tensor([weight for _, weight in terms], dtype=torch.float64, device=out.device)
    for start in range(0, out.numel(), size):
        target = out[start : start + size]
        part = scratch[:, : target.numel()]
        for row, (gradient, _) in zip(part, terms, strict=True):
            row.copy_(gradient[start : start + size])
        target.copy_(torch.mv(part.T, vector))


def _plain_sum(out: Tensor, gradients: Sequence[Tensor]) -> None:
    size = min(_chunk(out.device), out.numel())
    total = torch.empty(size, dtype=out.dtype, device=out.device)
    for start in range(0, out.numel(), size):
        target = out[start : start + size]
        part = total[: target.numel()].copy_(gradients[0][start : start + size])
        for gradient in gradients[1:]:
            part += gradient[start : start + size].to(out.device)
        target.copy_(part)
