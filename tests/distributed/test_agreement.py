"""Invariant 8 on ranks: what goes wrong on one rank is decided alike on all."""

import pytest

from tests.distributed.cases import RESUMED_TOO
from tests.support.reference import relative_error


@pytest.mark.parametrize("engine", ["ddp", "zero2_offload", "zero3", "fsdp2"])
def test_non_finite_gradient_of_a_domain_on_one_rank_drops_it_on_all(single, two, engine):
    result, reference = two[f"nonfinite-{engine}"], single["nonfinite"]
    assert [line["dropped"] for line in result.conflicts] == [[], ["math"], []]
    counted = [entry["surgery/dropped/math"] for entry in result.log if "surgery/dropped/math" in entry]
    assert counted == [0.0, 1.0, 0.0]
    for name, value in reference.parameters.items():
        assert value.isfinite().all()
        assert relative_error(result.parameters[name], value) <= 1e-5, name


def test_exception_in_one_ranks_verifier_stops_every_rank_with_its_cause(two):
    failed, waiting = two["failing-ddp"].error(1), two["failing-ddp"].error(0)
    assert "KeyError: 'no such answer key'" in failed.splitlines()[-1]
    assert "RankError" in waiting
    assert "rank 1: KeyError: 'no such answer key'" in waiting.splitlines()[-1]


def assert_continues(whole, resumed) -> None:
    for name, value in whole.parameters.items():
        assert relative_error(resumed.parameters[name], value) <= 1e-6, name
    assert relative_error(resumed.gramians(), whole.gramians()[2:]) <= 1e-6


@pytest.mark.parametrize("engine", ["zero3", "fsdp2"])
def test_resumed_run_continues_as_if_uninterrupted(two, engine):
    assert_continues(two[f"saved-{engine}"], two[f"resumed-{engine}"])


@pytest.mark.slow
@pytest.mark.parametrize("engine", RESUMED_TOO)
def test_resumed_run_continues_on_other_engines(more, engine):
    assert_continues(more[f"saved-{engine}"], more[f"resumed-{engine}"])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_whole_checkpoint_resumes_on_another_number_of_ranks(more, three, engine):
    whole, moved = more[f"saved-{engine}"], three[f"moved-{engine}"]
    for name, value in whole.parameters.items():
        assert relative_error(moved.parameters[name], value) <= 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_checkpoint_of_shards_is_refused_on_another_number_of_ranks(three, engine):
    message = three[f"moved-{engine}"].error(0).splitlines()[-1]
    assert message.startswith("ValueError: the checkpoint")
    assert "shards of 2 ranks, but this run has 3" in message
