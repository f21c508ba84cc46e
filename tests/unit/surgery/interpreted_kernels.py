"""The fused kernels, run by Triton's interpreter, against float64 and torch's own sums. `test_fused.py` starts this."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgs_trl.surgery import fused
from tests.support.reference import relative_error

CPU = torch.device("cpu")
# Triton's interpreter cuts bfloat16 off where a GPU rounds to nearest.
ROUNDING = {torch.float32: 2**-23, torch.float16: 2**-10, torch.bfloat16: 2**-7}


@st.composite
def windows(draw):
    """Vectors of T domain gradients, and the module of each; lengths about a program's chunk and block."""
    count = draw(st.integers(1, fused.MOST_DOMAINS))
    lengths = draw(st.lists(st.sampled_from([1, 3, 128, 699, 700, 701, 1500]), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = st.sampled_from([None, *fused.DTYPES])

    def gradient(length):
        kind = draw(dtype)
        return None if kind is None else torch.randn(length, generator=generator).to(kind)

    vectors = [[gradient(length) for _ in range(count)] for length in lengths]
    return lengths, vectors, [draw(st.integers(0, 3)) for _ in vectors]


def float64_rows(vector, length):
    return torch.stack([torch.zeros(length).double() if g is None else g.double() for g in vector])


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr(fused, "CHUNK", 700)
    monkeypatch.setattr(fused, "RUN", 2)


@settings(max_examples=25, deadline=None)
@given(windows())
def test_products_are_float64s(window):
    lengths, vectors, modules = window
    count = len(vectors[0])
    out = torch.full((4, count, count), 0.5, dtype=torch.float64)
    fused.add_products(out, vectors, modules)
    wanted = torch.full_like(out, 0.5)
    for length, vector, module in zip(lengths, vectors, modules, strict=True):
        rows = float64_rows(vector, length)
        wanted[module] += rows @ rows.T
    torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(windows(), st.data())
def test_combinations_are_float64s_rounded_once(window, data):
    lengths, vectors, _ = window
    weight = st.sampled_from([0.0, 1.0, -1.7, 0.3])
    weights = [[data.draw(weight) for _ in vector] for vector in vectors]
    out = [torch.full((length,), 9.0).to(data.draw(st.sampled_from(fused.DTYPES))) for length in lengths]
    for index, vector in enumerate(vectors):
        if vector[-1] is not None and data.draw(st.booleans()):
            out[index] = vector[-1]  # in place
    rows = [float64_rows(vector, length) for vector, length in zip(vectors, lengths, strict=True)]
    fused.write_combinations(out, vectors, weights)
    for target, row, numbers in zip(out, rows, weights, strict=True):
        factors = torch.tensor(numbers, dtype=torch.float64)
        # Where all weights are one every partial sum is rounded.
        bound = ROUNDING[target.dtype] * len(numbers) * (factors.abs() @ row.abs()) + 1e-7
        assert ((target.double() - factors @ row).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_of_one_are_torchs_sum_in_order(dtype):
    gradients = [torch.randn(1500, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in range(5)]
    first, *others = (gradient.float() for gradient in gradients)
    out = torch.empty(1500, dtype=dtype)
    fused.write_combinations([out], [gradients], [[1.0] * 5])
    assert out.equal(sum(others, first).to(dtype))


def test_a_gradient_of_weight_zero_is_not_read():
    bad, good = torch.full((10,), torch.nan), torch.arange(10.0)
    fused.write_combinations([bad], [[good, bad]], [[2.0, 0.0]])
    assert bad.equal(good * 2)
    fused.write_combinations([bad], [[good, bad]], [[0.0, 0.0]])
    assert bad.equal(torch.zeros(10))


def test_opposite_gradients_do_not_cancel_away():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(5000, generator=generator)
    second = -first + 1e-4 * torch.randn(5000, generator=generator)
    out = torch.zeros(1, 2, 2, dtype=torch.float64)
    fused.add_products(out, [[first, second]], [0])
    inner, norm = out[0, 0, 1].item(), out[0, 1, 1].item()
    target = torch.empty(5000)
    fused.write_combinations([target], [[first, second]], [[1.0, -inner / norm]])
    exact = first.double() - (first.double() @ second.double()) / second.double().square().sum() * second.double()
    assert relative_error(target.double().numpy(), exact.numpy()) < 1e-6


def test_what_does_not_fit():
    ok, wide = torch.zeros(4), torch.zeros(4, dtype=torch.float64)
    assert fused.fits(CPU, [[ok, None], [ok.half(), ok.bfloat16()]])
    assert fused.fits(CPU, [[ok, ok]] * 20, [ok] * 20)
    assert not fused.fits(CPU, [[ok, ok]], [wide])
    assert not fused.fits(CPU, [[ok, wide]])
    assert not fused.fits(CPU, [[ok, torch.zeros(8)[::2]]])
    assert not fused.fits(CPU, [[ok] * (fused.MOST_DOMAINS + 1)])
    assert not fused.fits(torch.device("cuda:0"), [[ok, ok]])


def test_kernels_are_tried_before_they_are_used(monkeypatch):
    fused.works.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fused.works(CPU)
    fused.works.cache_clear()
    monkeypatch.setattr(fused, "write_combinations", lambda out, vectors, weights: [t.zero_() for t in out])
    with pytest.warns(UserWarning, match=r"goes without its fused kernels, more slowly, as on cpu AssertionError"):
        assert not fused.works(CPU)
    fused.works.cache_clear()
