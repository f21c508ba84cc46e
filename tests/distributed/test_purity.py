"""Invariant 2 on ranks: a domain's reduced gradient is made of its own rows only."""

import pytest
import torch

from tests.support.reference import relative_error

CHAT, *OTHERS = range(3)  # sorted: chat, instruction_following, math


def flat(shards, domain: int) -> torch.Tensor:
    return torch.cat([gradient.flatten() for _, gradient in shards[domain]])


def assert_pure(first, second) -> None:
    for rank in range(2):
        before, after = first.shards(rank), second.shards(rank)
        assert relative_error(flat(after, CHAT), flat(before, CHAT)) > 1e-2  # its rows were replaced
        for domain in OTHERS:
            assert torch.equal(flat(after, domain), flat(before, domain)), (rank, domain)


@pytest.mark.parametrize("engine", ["zero3", "fsdp2"])
def test_replacing_another_domains_rows_changes_nothing_bit_for_bit(two, engine):
    assert_pure(two[f"three-{engine}"], two[f"other-{engine}"])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "zero2"])
def test_nor_on_other_engines(more, engine):
    assert_pure(more[f"three-{engine}"], more[f"other-{engine}"])


def test_labels_by_the_local_rank_are_impure(two):
    """The released code's accounting: the test above fails on it."""
    with pytest.raises(AssertionError):
        assert_pure(two["labels-ddp"], two["labels-other-ddp"])
    rank0, other = two["labels-ddp"].shards(0), two["labels-other-ddp"].shards(0)
    assert max(relative_error(flat(other, d), flat(rank0, d)) for d in OTHERS) > 1e-2
