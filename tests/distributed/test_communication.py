"""Invariant 7: what surgery moves between ranks, counted at the backend."""

import pytest

from tests.distributed.cases import COUNTED

DOMAINS = 3


def moved(result, smallest: int) -> int:
    """Numbers in collectives of at least `smallest` of them: without norms, flags and metrics."""
    return sum(n for sizes in result.collectives().values() for n in sizes if n >= smallest)


def gradient_size(result) -> int:
    return sum(value.numel() for value in result.parameters.values())


@pytest.mark.parametrize("engine", COUNTED)
def test_extra_communication(two, engine):
    plain, surgery = two[f"none-{engine}"], two[f"three-{engine}"]
    size = gradient_size(plain)
    gramian = surgery.gramians()[0].numel()
    floor = gramian + 1
    extra = moved(surgery, floor) - moved(plain, floor)
    if engine in ("zero2", "zero3"):
        assert extra == 0
    else:  # one reduction per domain instead of one per window; padding aside
        assert extra == pytest.approx((DOMAINS - 1) * size, rel=0.02)
    # The Gramians, once. DDP shares rank 0's copy; the others sum their shards'.
    before = sum(sizes.count(gramian) for sizes in plain.collectives().values())
    after = sum(sizes.count(gramian) for sizes in surgery.collectives().values())
    assert after - before == 1
