"""Invariant 4: the same global batch trains the same model on every engine and world size.

The reference is one process; every engine takes three AdamW steps with clipping active. A run that did not train with
the engine it names fails in the worker.
"""

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.cases import BF16, COMPILED, COUNTED, FEWER_ENGINES, FORGETFUL, FOUR, MAIN_ENGINES, UNEVEN
from tests.support.reference import relative_error

TOLERANCE = 1e-5


def assert_same_training(result, reference) -> None:
    assert result.parameters.keys() == reference.parameters.keys()
    for name, value in reference.parameters.items():
        assert relative_error(result.parameters[name], value) <= TOLERANCE, name
        assert (result.parameters[name] - value).abs().max() <= TOLERANCE, name
    got, expected = result.gramians(), reference.gramians()
    assert got.shape == expected.shape
    error = (got - expected).flatten(2).norm(dim=2) / expected.flatten(2).norm(dim=2)
    assert error.max() <= TOLERANCE
    assert torch.allclose(result.grad_norms(), reference.grad_norms(), rtol=TOLERANCE, atol=0)


def test_reference_clips_and_has_conflicts(single):
    """Without these the comparisons below would say little."""
    assert (single["three"].grad_norms() > 0.1).all()
    assert (single["three"].gramians() < 0).any()
    weights = torch.tensor([line["weights"] for line in single["three"].conflicts])
    assert (weights != 1.0).any()


@pytest.mark.parametrize("engine", FEWER_ENGINES)
def test_three_domains_by_block_on_two_ranks(single, two, engine):
    assert_same_training(two[f"three-{engine}"], single["three"])


def test_policy_of_fsdp2_is_saved_whole(two):
    """With accelerate's default, sharded checkpoints, transformers would save nothing and say nothing."""
    saved = load_file(two["three-fsdp2"].file("model.safetensors"))
    parameters = two["three-fsdp2"].parameters
    assert saved.keys() == parameters.keys()
    for name, value in parameters.items():
        assert torch.equal(saved[name], value), name


@pytest.mark.parametrize("engine", ["zero3", "fsdp2"])
def test_two_domains_globally_on_two_ranks(single, two, engine):
    assert_same_training(two[f"two-{engine}"], single["two"])


@pytest.mark.parametrize("engine", COUNTED)
def test_without_surgery_on_two_ranks(single, two, engine):
    for name, value in single["none"].parameters.items():
        assert relative_error(two[f"none-{engine}"].parameters[name], value) <= TOLERANCE, name


def test_adapters_on_zero3(single, two):
    assert all("lora_" in name for name in two["lora-zero3"].parameters)
    assert_same_training(two["lora-zero3"], single["lora"])


@pytest.mark.parametrize("engine", FORGETFUL)
def test_parameter_that_one_domain_reaches_before_its_last_micro_batch(two, engine):
    """DeepSpeed copies to the host, or with `overlap_comm` reduces, only what the last micro-batch reached, and leaves
    the last step's gradient on the host, where the next window's first domain would find it."""
    reference = two["lone-ddp"]  # the same micro-batches
    shift = reference.conflicts[0]["modules"].index("model.embed_tokens.shift")
    gramians = reference.gramians()[:, shift]
    assert (gramians[:, 2, 2] > 0).all() and not gramians[:, :2].any()
    assert_same_training(two[f"lone-{engine}"], reference)


def test_output_head_apart_from_the_final_norm_is_refused_on_fsdp2(two):
    """Its gradient would not be reduced: TRL reads its weight without calling it."""
    for rank in range(2):
        assert "ValueError: the output head is trained, but FSDP2 shards it apart" in two["head-fsdp2"].error(rank)


def test_second_call_of_train_is_refused_on_deepspeed(two):
    for rank in range(2):
        assert "ValueError: train() was called after train() or evaluate()" in two["twice-zero2"].error(rank)


def test_evaluation_before_and_between_steps_changes_nothing(single, two):
    """FSDP2 leaves parameters whole after a forward that no backward follows."""
    assert_evaluated(two["evaluated-fsdp2"], single["three"])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_evaluation_on_deepspeed_changes_nothing(single, more, engine):
    assert_evaluated(more[f"evaluated-{engine}"], single["three"])


def assert_evaluated(result, reference):
    assert sum("eval_loss" in entry for entry in result.log) == 4
    assert_same_training(result, reference)


def test_held_out_rewards_are_those_of_one_rank(single, two):
    """Of every prompt once, also where domains that nobody knows are on one rank and not on the other."""

    def rewards(result):
        logs = [log for log in result.log if "eval_loss" in log]
        # First and last evaluation: those between meet a prompt again, and complete it in another way on another rank.
        return [
            {name: value for name, value in log.items() if name.startswith("eval_domain/") and "/tokens" not in name}
            for log in (logs[0], logs[-1])
        ]

    ours, reference = rewards(two["heldout-ddp"]), rewards(single["heldout"])
    assert {name.split("/")[1] for name in reference[0]} == {"chat", "instruction_following", "math"}
    assert {name.split("/")[1] for name in reference[1]} == {"chat"}
    for found, expected in zip(ours, reference, strict=True):
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", UNEVEN)
def test_domains_that_do_not_divide_by_two_ranks(single, two, kind):
    """Rows of weight zero fill up the shorter ranks; the loss, its normaliser and its KL term stay the same.

    With an entropy bonus only where a micro-batch is one row: TRL takes that as a mean over it, whatever rows it holds.
    """
    assert_same_training(two[f"{kind}-ddp"], single[kind])


@pytest.mark.parametrize("engine", BF16)
def test_bf16_gramians_are_those_of_fp32_on_the_same_weights(single, two, engine):
    got, expected = two[f"three-{engine}"].gramians()[0].sum(0), single["three"].gramians()[0].sum(0)
    assert relative_error(got, expected) <= 1e-2
    assert all(value.isfinite().all() for value in two[f"three-{engine}"].parameters.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["three-zero1_offload", "two-ddp", "two-zero2"])
def test_more_on_two_ranks(single, more, name):
    assert_same_training(more[name], single[name.split("-")[0]])


@pytest.mark.slow
@pytest.mark.parametrize("engine", COMPILED)
def test_compiled_model(single, more, engine):
    """On FSDP2 accelerate shards torch.compile's wrapper; the other engines are inside it."""
    assert_same_training(more[f"compiled-{engine}"], single["three"])


@pytest.mark.slow
@pytest.mark.parametrize("engine", MAIN_ENGINES)
def test_three_ranks_with_sizes_that_do_not_divide(single, three, engine):
    assert_same_training(three[f"three-{engine}"], single["three"])


@pytest.mark.slow
@pytest.mark.parametrize("engine", MAIN_ENGINES)
def test_two_domains_globally_on_three_ranks(single, three, engine):
    assert_same_training(three[f"two-{engine}"], single["two"])


@pytest.mark.slow
@pytest.mark.parametrize("kind, engine", [(case["name"].rsplit("-", 1)) for case in FOUR])
def test_domains_that_do_not_divide_by_four_ranks(single, four, kind, engine):
    assert_same_training(four[f"{kind}-{engine}"], single[kind])
