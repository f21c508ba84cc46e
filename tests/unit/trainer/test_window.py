"""Rows of several ranks on every rank: what a rank adds in padding must not change a row's loss."""

import math
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOTrainer

from mgs_trl.training.window import WindowShape, check_rows, cut_windows, gather_rows

WIDEST = 7  # of another rank's completions


def pad_to_widest(value, dim, pad_index, pad_first):
    assert dim == 1
    padding = value.new_full((len(value), WIDEST - value.size(1)), pad_index)
    return torch.cat([padding, value] if pad_first else [value, padding], dim=1)


def test_padding_of_another_ranks_width_keeps_the_weights_of_vespo():
    """VESPO sums the logarithms of the sampler's ratios over a row, padding included: TRL's own padding has ratio 1."""
    generator = torch.Generator().manual_seed(0)
    ratio = torch.rand(3, 5, generator=generator) + 0.5
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    ratio = torch.where(mask == 1, ratio, 1.0)
    advantages = torch.tensor([[1.0], [-0.5], [0.3]])
    fake = SimpleNamespace(num_processes=2, pad_across_processes=pad_to_widest, gather=lambda value: value)
    rows = gather_rows(fake, {"completion_mask": mask, "importance_sampling_ratio": ratio}, pad_token_id=9)  # pyright: ignore[reportArgumentType]
    assert rows["completion_mask"].sum(1).tolist() == [5, 3, 2]

    def weights(mask, ratio):
        return GRPOTrainer.get_gamma_weights(advantages, torch.zeros(mask.shape), mask, ratio)

    got = weights(rows["completion_mask"], rows["importance_sampling_ratio"])
    assert torch.allclose(got, weights(mask, ratio))
    # By the paper's formula: exp(lambda) w^k exp(-lambda w) of the sequence's ratio.
    w = ratio[0].double().prod().item()
    assert got[0].item() == pytest.approx(math.exp(3) * w**2 * math.exp(-3 * w), rel=1e-5)


@pytest.mark.parametrize("counts", [(3, 3), (4, 8), (1, 11), (5, 3, 4), (1, 1, 10)])
@pytest.mark.parametrize("ranks, micro_batch, steps", [(1, 4, 3), (2, 3, 2), (3, 2, 2), (4, 3, 1), (4, 1, 3)])
def test_every_row_counts_once_in_a_mean_over_rows(counts, ranks, micro_batch, steps):
    """The router's auxiliary loss: copies that fill up a rank's count weigh nothing, on any number of ranks."""
    size = ranks * micro_batch * steps
    domains = [d for d, count in enumerate(counts) for _ in range(count)]
    domains = (domains * size)[:size]
    ids = torch.arange(size)[:, None]
    rows = {
        "prompt_ids": ids, "prompt_mask": torch.ones_like(ids), "completion_ids": ids,
        "completion_mask": torch.ones_like(ids), "advantages": torch.ones(size),
    }  # fmt: skip
    shape = WindowShape(micro_batch, steps, "grpo")
    total, alone = 0.0, 0
    for rank in range(ranks):
        blocks, _ = cut_windows(rows, domains, 1, shape, rank, ranks)
        for block in (block for step in blocks for block in step):
            real = block["completion_mask"] * block.get("tool_mask", 1)
            assert block.row_scale == int(real.sum()) / micro_batch
            alone += int(real.sum() == 0)
            total += block.row_scale
    assert total == pytest.approx(ranks * steps)  # TRL divides by both
    if (counts, ranks, micro_batch) == ((1, 11), 4, 3):
        assert alone > 0  # a block of nothing but copies


@pytest.mark.parametrize(
    "counts, ranks, micro_batch, steps",
    [
        ((16, 8), 1, 4, 6),
        ((12, 4), 2, 4, 2),
        ((12, 4), 8, 1, 2),
        ((3, 5), 4, 1, 2),
        ((3, 3, 2), 4, 2, 1),
        ((176, 168, 168), 64, 1, 8),  # 64 prompts of three domains, 8 completions each
    ],
)
def test_a_mean_over_tokens_keeps_its_size_where_copies_fill_up(counts, ranks, micro_batch, steps):
    """A loss of one per token is a loss of one, and so is the entropy bonus: TRL's means over micro-batches are.

    Of micro-batches of one row TRL's is the mean over rows, whichever rank has them, whatever each token's loss is.
    """
    size = ranks * micro_batch * steps
    assert sum(counts) == size
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (size, 1), generator=generator)
    mask, ids = (torch.arange(8) < lengths).long(), torch.arange(size)[:, None]
    losses = torch.rand(mask.shape, generator=generator, dtype=torch.float64)
    rows = {
        "prompt_ids": ids, "prompt_mask": torch.ones_like(ids), "completion_ids": mask, "completion_mask": mask,
        "advantages": torch.ones(size), "losses": losses,
    }  # fmt: skip
    domains = [d for d, count in enumerate(counts) for _ in range(count)]
    sums = torch.zeros(4, dtype=torch.float64)
    for rank in range(ranks):
        micro_steps, _ = cut_windows(rows, domains, 1, WindowShape(micro_batch, steps, "bnpo"), rank, ranks)
        for block in (block for blocks in micro_steps for block in blocks):
            real = block["completion_mask"] * block.get("tool_mask", 1)
            tokens = real.sum().clamp(min=1)
            means = torch.stack([real.sum() / tokens, (block["losses"] * real).sum() / tokens])
            sums += torch.cat([block.loss_scale * means, block.token_scale * means])
    one, loss, bonus_of_one, bonus = (sums / (ranks * steps)).tolist()
    assert one == pytest.approx(1.0, rel=1e-6) and bonus_of_one == pytest.approx(1.0, rel=1e-6)
    assert loss == pytest.approx(bonus, rel=1e-6)
    if micro_batch == 1:
        assert loss == pytest.approx(((losses * mask).sum(1) / mask.sum(1)).mean().item(), rel=1e-6)


def test_copies_have_no_advantage_in_any_token():
    """A subclass may give each token its own, `[rows, tokens]`, as TRL's loss allows."""
    ids, advantages = torch.arange(3)[:, None].expand(3, 3), torch.arange(1.0, 10.0).view(3, 3)
    rows = {
        "prompt_ids": ids, "prompt_mask": torch.ones_like(ids), "completion_ids": ids,
        "completion_mask": torch.ones_like(ids), "advantages": advantages,
    }  # fmt: skip
    found = []
    for rank in range(2):
        [[block]], _ = cut_windows(rows, [0, 0, 0], 1, WindowShape(2, 1, "grpo"), rank, 2)
        found += [row.tolist() for row in block["advantages"]]
    assert sorted(found) == [[0.0, 0.0, 0.0], *advantages.tolist()]


def test_what_has_no_row_for_each_completion_is_refused():
    """Images of tools and environments, of which the data tells nothing, or whatever a subclass adds."""
    rows = {"completion_ids": torch.zeros(4, 2), "num_items_in_batch": torch.tensor(8)}
    check_rows(rows)
    for name, value in (("num_images", [1, 0, 0, 2]), ("pixel_values", torch.zeros(3, 8))):
        with pytest.raises(
            ValueError, match=f"^the rollouts hold '{name}', but multi-domain training takes only tensors"
        ):
            check_rows({**rows, name: value})
