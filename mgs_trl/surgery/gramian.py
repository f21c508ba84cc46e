"""The two passes over memory: inner products of the domain gradients, and their combination.

Both take many vectors at once, as small ones would otherwise be spent on calls and on waiting for threads.
"""

import functools
import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mgs_trl.surgery.chunks import Chunk, cut, for_each


def add_gramian(out: Tensor, gradients: Sequence[Tensor]) -> None:
    """`add_gramians` of one vector: `out` is float64 `[T, T]`."""
    add_gramians(out[None], [gradients], [0])


def add_gramians(out: Tensor, vectors: Sequence[Sequence[Tensor | None]], modules: Sequence[int]) -> None:
    """Add to the Gramian of each module the inner products of its vectors' domain gradients.

    Products are taken and summed in float64: decisions depend on the sign of inner products, and nearly opposite
    gradients cancel in the result. The order of summation does not depend on the number of threads.

    Args:
        out: float64 `[M, T, T]`, on the device where the products are to be computed.
        vectors: for each vector its T domain gradients, one-dimensional tensors of equal length, of any floating dtype
            and on any device; None for zeros.
        modules: for each vector the module that it belongs to.
    """
    kernels = _kernels(out.device, vectors)
    if kernels is not None:
        kernels.add_products(out, vectors, modules)
        return
    count = out.shape[1]
    chunks = cut([_length(vector) for vector in vectors], out.device)
    if not chunks:
        return
    parts = torch.zeros(len(chunks), count, count, dtype=torch.float64, device=out.device)
    place = dict(zip(chunks, parts, strict=True))
    size = max(chunk.stop - chunk.start for chunk in chunks)

    def products(run: Sequence[Chunk]) -> None:
        scratch = torch.empty(count, size, dtype=torch.float64, device=out.device)
        for chunk in run:
            rows = scratch[:, : chunk.stop - chunk.start]
            for row, gradient in zip(rows, vectors[chunk.vector], strict=True):
                row.zero_() if gradient is None else row.copy_(gradient[chunk.start : chunk.stop])
            # Row by row: BLAS is an order of magnitude faster at this than at a [T, n] x [n, T] product.
            for i, sums in enumerate(place[chunk]):
                torch.mv(rows[i:], rows[i], out=sums[i:])

    for_each(chunks, out.device, products)
    parts += parts.triu(1).mT
    for chunk, part in place.items():
        out[modules[chunk.vector]] += part


def combine(out: Tensor, gradients: Sequence[Tensor], weights: Sequence[float]) -> None:
    """`combine_all` of one vector: `out` is one-dimensional, `weights` are T numbers."""
    combine_all([out], [gradients], [weights])


def combine_all(
    out: Sequence[Tensor], vectors: Sequence[Sequence[Tensor | None]], weights: Sequence[Sequence[float]]
) -> None:
    """Write `sum_d weights[v][d] * vectors[v][d]` into `out[v]`.

    Where all weights are one the result is the plain sum, added in order in `out`'s own precision, of 16 bits in
    float32. Otherwise the sum is taken in float64. It is rounded once. A gradient of weight zero is not read, so it may
    hold anything.

    Args:
        out: one-dimensional tensors; each is computed on its own device, and may be one of its own vector's gradients.
        vectors: for each vector its T domain gradients, one-dimensional tensors as long as its `out`; None for zeros.
        weights: for each vector T numbers.
    """
    for device in dict.fromkeys(target.device for target in out):
        here = [i for i, target in enumerate(out) if target.device == device]
        _combine_on(device, [out[i] for i in here], [vectors[i] for i in here], [weights[i] for i in here])


def _combine_on(
    device: torch.device,
    out: Sequence[Tensor],
    vectors: Sequence[Sequence[Tensor | None]],
    weights: Sequence[Sequence[float]],
) -> None:
    """`combine_all` of what is on one device."""
    kernels = _kernels(device, vectors, out)
    if kernels is not None:
        kernels.write_combinations(out, vectors, weights)
        return
    chunks = cut([target.numel() for target in out], device)
    size = max((chunk.stop - chunk.start for chunk in chunks), default=0)
    most = max(len(vector) for vector in vectors)

    def sums(run: Sequence[Chunk]) -> None:
        scratch = torch.empty(most + 1, size, dtype=torch.float64, device=device)
        for vector, start, stop in run:
            parts = [
                (gradient[start:stop], weight)
                for gradient, weight in zip(vectors[vector], weights[vector], strict=True)
                if gradient is not None
            ]
            _combine_chunk(out[vector][start:stop], parts, scratch)

    for_each(chunks, device, sums)


def _combine_chunk(out: Tensor, parts: Sequence[tuple[Tensor, float]], scratch: Tensor) -> None:
    """`combine_all` of one chunk. `scratch`: float64, one row more than there are parts, at least as long as `out`."""
    length = out.numel()
    if parts and all(weight == 1.0 for _, weight in parts):
        wide = torch.promote_types(out.dtype, torch.float32)
        total = scratch[-1].view(wide)[:length].copy_(parts[0][0])
        for gradient, _ in parts[1:]:
            total += gradient.to(out.device)
        out.copy_(total)
        return
    parts = [(gradient, weight) for gradient, weight in parts if weight != 0.0]
    if not parts:
        out.zero_()
        return
    rows = scratch[: len(parts), :length]
    for row, (gradient, _) in zip(rows, parts, strict=True):
        row.copy_(gradient)
    vector = torch.tensor([weight for _, weight in parts], dtype=torch.float64, device=out.device)
    out.copy_(torch.mv(rows.T, vector, out=scratch[-1, :length]))


def _length(vector: Sequence[Tensor | None]) -> int:
    return next((gradient.numel() for gradient in vector if gradient is not None), 0)


def _kernels(device: torch.device, vectors: Sequence[Sequence[Tensor | None]], out: Sequence[Tensor] = ()) -> Any:
    """The module with kernels that do the same faster; None where there are none for these tensors."""
    fused = _fused() if device.type == "cuda" else None
    return fused if fused and fused.fits(device, vectors, out) and fused.works(device) else None


@functools.cache
def _fused() -> Any:
    """The module with the kernels; None without Triton, or, with a warning, where it cannot be imported."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        from mgs_trl.surgery import fused
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        warnings.warn(f"surgery goes without its fused kernels, more slowly, as Triton fails: {reason}", stacklevel=2)
        return None
    return fused
