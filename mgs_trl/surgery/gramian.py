"""The two passes over memory: inner products of the domain gradients, and their combination."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mgs_trl.surgery.chunks import chunk_size, for_each_chunk


def add_gramian(out: Tensor, gradients: Sequence[Tensor]) -> None:
    """Add the inner products of some gradients to `out`.

    Products are taken and summed in float64: decisions depend on the sign of inner products, and nearly opposite
    gradients cancel in the result. The order of summation does not depend on the number of threads.

    Args:
        out: float64 `[T, T]`, on the device where the products are to be computed.
        gradients: T one-dimensional tensors of equal length, of any floating dtype and on any device.
    """
    length, count = gradients[0].numel(), len(gradients)
    size = min(chunk_size(out.device), length)
    parts = torch.empty(-(-length // size) if size else 0, count, count, dtype=torch.float64, device=out.device)

    def products(starts: range) -> None:
        scratch = torch.empty(count, size, dtype=torch.float64, device=out.device)
        for start in starts:
            part = scratch[:, : min(size, length - start)]
            for row, gradient in zip(part, gradients, strict=True):
                row.copy_(gradient[start : start + size])
            # Row by row: BLAS is an order of magnitude faster at this than at a [T, n] x [n, T] product.
            for sums, row in zip(parts[start // size], part, strict=True):
                torch.mv(part, row, out=sums)

    for_each_chunk(length, size, out.device, products)
    out += parts.sum(0)


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
    length = out.numel()
    size = min(chunk_size(out.device), length)
    vector = torch.tensor([weight for _, weight in terms], dtype=torch.float64, device=out.device)

    def weighted_sum(starts: range) -> None:
        scratch = torch.empty(len(terms), size, dtype=torch.float64, device=out.device)
        total = torch.empty(size, dtype=torch.float64, device=out.device)
        for start in starts:
            target = out[start : start + size]
            part = scratch[:, : target.numel()]
            for row, (gradient, _) in zip(part, terms, strict=True):
                row.copy_(gradient[start : start + size])
            target.copy_(torch.mv(part.T, vector, out=total[: target.numel()]))

    for_each_chunk(length, size, out.device, weighted_sum)


def _plain_sum(out: Tensor, gradients: Sequence[Tensor]) -> None:
    length = out.numel()
    size = min(chunk_size(out.device), length)

    def plain_sum(starts: range) -> None:
        total = torch.empty(size, dtype=out.dtype, device=out.device)
        for start in starts:
            target = out[start : start + size]
            part = total[: target.numel()].copy_(gradients[0][start : start + size])
            for gradient in gradients[1:]:
                part += gradient[start : start + size].to(out.device)
            target.copy_(part)

    for_each_chunk(length, size, out.device, plain_sum)
