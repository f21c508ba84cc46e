"""The two passes over memory as one GPU kernel each (Triton), for gradients that lie on the GPU together.

Torch's operations would write every gradient to memory in float64 and read it again, some seven times the traffic of
reading each gradient once, and start several kernels for every parameter. These read each element of each gradient
once, and what they compute is the same: products and sums in float64, rounded once.
"""

import functools
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mgs_trl.surgery.chunks import Chunk
from mgs_trl.surgery.kernels import combinations, products

CHUNK = 1 << 16  # elements that one program reads of each gradient
MOST_DOMAINS = 8  # more would not fit into a program's registers
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BLOCK = 1024  # elements, of all domains together, that a program has in its registers
RUN = 128  # rows that one thread adds up
_ABSENT = -1  # in place of a dtype: a gradient that is zero everywhere, or is not to be read


@functools.cache
def works(device: torch.device) -> bool:
    """Whether the kernels compile and compute rightly on a device, tried once on small vectors.

    If not, a warning says why, and torch's operations do the same more slowly.
    """
    generator = torch.Generator().manual_seed(0)
    lengths, weights = (1, 3000, CHUNK + 5), [1.5, -0.25, 0.5]
    vectors = [[torch.randn(length, generator=generator).to(device) for _ in weights] for length in lengths]
    exact = [torch.stack(vector).double() for vector in vectors]
    out = torch.zeros(2, 3, 3, dtype=torch.float64, device=device)
    targets = [torch.empty_like(vector[0]) for vector in vectors]
    try:
        add_products(out, vectors, [1, 0, 1])
        write_combinations(targets, vectors, [weights] * len(vectors))
        inner = torch.stack([exact[1] @ exact[1].T, exact[0] @ exact[0].T + exact[2] @ exact[2].T])
        torch.testing.assert_close(out, inner, rtol=1e-9, atol=1e-6)
        for target, rows in zip(targets, exact, strict=True):
            wanted = (torch.tensor(weights, dtype=torch.float64, device=device) @ rows).float()
            torch.testing.assert_close(target, wanted, rtol=1e-6, atol=1e-6)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        warnings.warn(f"surgery goes without its fused kernels, more slowly, as on {device} {reason}", stacklevel=2)
        return False
    return True


def fits(device: torch.device, vectors: Sequence[Sequence[Tensor | None]], out: Sequence[Tensor] = ()) -> bool:
    """Whether the kernels can take these: `MOST_DOMAINS` at most; all tensors contiguous, on `device`, of `DTYPES`."""
    tensors = [gradient for vector in vectors for gradient in vector if gradient is not None]
    return all(len(vector) == len(vectors[0]) <= MOST_DOMAINS for vector in vectors) and all(
        tensor.device == device and tensor.dtype in DTYPES and tensor.is_contiguous() for tensor in (*tensors, *out)
    )


def add_products(out: Tensor, vectors: Sequence[Sequence[Tensor | None]], modules: Sequence[int]) -> None:
    """`gramian.add_gramians` of vectors that fit; the same arguments."""
    order = sorted(range(len(vectors)), key=modules.__getitem__)  # chunks of a module stand together
    vectors, of_vector = [vectors[i] for i in order], [modules[i] for i in order]
    chunks = _chunks([next((g.numel() for g in vector if g is not None), 0) for vector in vectors])
    if not chunks:
        return
    count, device = out.shape[1], out.device
    parts = torch.empty(len(chunks), count, count, dtype=torch.float64, device=device)
    padded = max(2, 1 << (count - 1).bit_length())
    addresses, dtypes = _table(vectors, device)
    with _current(device):
        products[(len(chunks),)](
            addresses, dtypes, _on(chunks, device), parts,
            **_constants(vectors, COUNT=count, PADDED=padded, BLOCK=BLOCK // padded),
        )  # fmt: skip
    per_module = Counter(of_vector[chunk.vector] for chunk in chunks)
    sums = _sum_runs(parts.flatten(1), list(per_module.values()))
    out[list(per_module)] += sums.view(len(per_module), count, count)


def write_combinations(
    out: Sequence[Tensor], vectors: Sequence[Sequence[Tensor | None]], weights: Sequence[Sequence[float]]
) -> None:
    """`gramian.combine_all` of vectors that fit, into tensors that fit; the same arguments."""
    chunks = _chunks([target.numel() for target in out])
    if not chunks:
        return
    device, count = out[0].device, len(vectors[0])
    read = [
        [None if weight == 0.0 else gradient for gradient, weight in zip(vector, row, strict=True)]
        for vector, row in zip(vectors, weights, strict=True)
    ]
    plain = [
        all(weight == 1.0 for gradient, weight in zip(vector, row, strict=True) if gradient is not None)
        for vector, row in zip(vectors, weights, strict=True)
    ]
    addresses, dtypes = _table(read, device)
    targets, target_dtypes = _table([[target] for target in out], device)
    with _current(device):
        combinations[(len(chunks),)](
            addresses, dtypes, targets, target_dtypes,
            _on(weights, device, torch.float64), _on(plain, device, torch.int32), _on(chunks, device),
            **_constants([*read, out], COUNT=count, BLOCK=BLOCK),
        )  # fmt: skip


def _sum_runs(rows: Tensor, lengths: Sequence[int]) -> Tensor:
    """Sums of consecutive rows, so many to each sum. In two steps, as torch gives each sum to one thread."""
    runs = [[min(RUN, length - start) for start in range(0, length, RUN)] for length in lengths]
    for sizes in ([size for run in runs for size in run], [len(run) for run in runs]):
        rows = torch.segment_reduce(rows, "sum", lengths=_on(sizes, rows.device), unsafe=True)
    return rows


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Triton starts kernels on the current GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _chunks(lengths: Sequence[int]) -> list[Chunk]:
    return [
        Chunk(vector, start, min(start + CHUNK, length))
        for vector, length in enumerate(lengths)
        for start in range(0, length, CHUNK)
    ]


def _table(vectors: Sequence[Sequence[Tensor | None]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Addresses, int64 `[V, T]`, and dtypes as places in `DTYPES`, int32 `[V, T]`."""
    addresses = [[0 if g is None else g.data_ptr() for g in vector] for vector in vectors]
    dtypes = [[_ABSENT if g is None else DTYPES.index(g.dtype) for g in vector] for vector in vectors]
    return _on(addresses, device), _on(dtypes, device, torch.int32)


def _constants(vectors: Sequence[Sequence[Tensor | None]], **sizes: int) -> dict[str, Any]:
    """What a kernel is compiled for: sizes, and which dtypes there are."""
    found = {gradient.dtype for vector in vectors for gradient in vector if gradient is not None}
    return {**sizes, **dict(zip(("F32", "BF16", "F16"), (dtype in found for dtype in DTYPES), strict=True))}


def _on(values: Sequence[object], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
