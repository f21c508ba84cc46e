"""The kernels of `fused`, in Triton's language. A program works on one chunk of one vector.

It finds its gradients by their addresses, so that one launch serves all parameters, of whatever shape, dtype and place.
"""

import triton
import triton.language as tl


@triton.jit
def _load(address, dtype, at, stop, F32: tl.constexpr, BF16: tl.constexpr, F16: tl.constexpr):
    """Elements `at`, below `stop`, in float64; zeros where absent. `dtype` is a place in `fused.DTYPES`."""
    value = tl.zeros([1], tl.float64)
    if F32:
        place = address.to(tl.pointer_type(tl.float32)) + at
        value = value + tl.load(place, mask=at < tl.where(dtype == 0, stop, 0), other=0.0).to(tl.float64)
    if BF16:
        place = address.to(tl.pointer_type(tl.bfloat16)) + at
        value = value + tl.load(place, mask=at < tl.where(dtype == 1, stop, 0), other=0.0).to(tl.float32).to(tl.float64)
    if F16:
        place = address.to(tl.pointer_type(tl.float16)) + at
        value = value + tl.load(place, mask=at < tl.where(dtype == 2, stop, 0), other=0.0).to(tl.float32).to(tl.float64)
    return value


@triton.jit
def _store(address, dtype, at, stop, value, F32: tl.constexpr, BF16: tl.constexpr, F16: tl.constexpr):
    """Write float32 elements `at`, below `stop`, as what `dtype` says."""
    if F32:
        tl.store(address.to(tl.pointer_type(tl.float32)) + at, value, mask=at < tl.where(dtype == 0, stop, 0))
    if BF16:
        place, rounded = address.to(tl.pointer_type(tl.bfloat16)) + at, value.to(tl.bfloat16)
        tl.store(place, rounded, mask=at < tl.where(dtype == 1, stop, 0))
    if F16:
        place, rounded = address.to(tl.pointer_type(tl.float16)) + at, value.to(tl.float16)
        tl.store(place, rounded, mask=at < tl.where(dtype == 2, stop, 0))


@triton.jit
def products(
    addresses, dtypes, chunks, parts,
    COUNT: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
    F32: tl.constexpr, BF16: tl.constexpr, F16: tl.constexpr,
):  # fmt: skip
    """`parts[c, i, j]`: inner product of gradients `i` and `j` over chunk `c`. `PADDED` is a power of 2."""
    chunk = tl.program_id(0).to(tl.int64)
    vector = tl.load(chunks + 3 * chunk)
    start, stop = tl.load(chunks + 3 * chunk + 1), tl.load(chunks + 3 * chunk + 2)
    domain = tl.arange(0, PADDED)
    known = domain < COUNT
    address = tl.load(addresses + vector * COUNT + domain, mask=known, other=0)
    dtype = tl.load(dtypes + vector * COUNT + domain, mask=known, other=-1)
    sums = tl.zeros([PADDED, PADDED, BLOCK], tl.float64)
    for first in range(start, stop, BLOCK):
        at = (first + tl.arange(0, BLOCK))[None, None, :]
        # Loaded twice, the second time from the cache: each in the layout of its own axis, so that nothing is moved
        # between threads.
        rows = _load(address[:, None, None], dtype[:, None, None], at, stop, F32, BF16, F16)
        columns = _load(address[None, :, None], dtype[None, :, None], at, stop, F32, BF16, F16)
        sums += rows * columns
    row, column = domain[:, None], domain[None, :]
    place = parts + (chunk * COUNT + row) * COUNT + column
    tl.store(place, tl.sum(sums, 2), mask=(row < COUNT) & (column < COUNT))


@triton.jit
def combinations(
    addresses, dtypes, targets, target_dtypes, weights, plain, chunks,
    COUNT: tl.constexpr, BLOCK: tl.constexpr, F32: tl.constexpr, BF16: tl.constexpr, F16: tl.constexpr,
):  # fmt: skip
    """Into each target its vector's weighted sum; the plain sum, in order in float32, where `plain` is 1."""
    chunk = tl.program_id(0).to(tl.int64)
    vector = tl.load(chunks + 3 * chunk)
    start, stop = tl.load(chunks + 3 * chunk + 1), tl.load(chunks + 3 * chunk + 2)
    is_plain = tl.load(plain + vector) == 1
    for first in range(start, stop, BLOCK):
        at = first + tl.arange(0, BLOCK)
        weighted = tl.zeros([BLOCK], tl.float64)
        in_order = tl.zeros([BLOCK], tl.float32)
        for domain in tl.static_range(COUNT):  # pyright: ignore[reportGeneralTypeIssues]
            place = vector * COUNT + domain
            gradient = _load(tl.load(addresses + place), tl.load(dtypes + place), at, stop, F32, BF16, F16)
            weighted += tl.load(weights + place) * gradient
            in_order += gradient.to(tl.float32)
        value = tl.where(is_plain, in_order, weighted.to(tl.float32))
        _store(tl.load(targets + vector), tl.load(target_dtypes + vector), at, stop, value, F32, BF16, F16)
