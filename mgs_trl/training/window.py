"""From a scored generation batch to the row blocks of its windows: gathered, dealt to ranks, ordered by domain, cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from mgs_trl.domains.exchange import Deal, deal_rows, token_imbalance
from mgs_trl.domains.schedule import RowRange, plan_window
from mgs_trl.training.padding import trim

#: Loss types of TRL whose loss is a mean over the rows of a micro-batch, so that a part of the rows counts by its
#: share of them. `bnpo` is a mean over the micro-batch's tokens; all others are sums with one normaliser per window.
ROW_MEAN_LOSSES = ("grpo", "dr_grpo", "sapo", "luspo")
TOKEN_MEAN_LOSSES = ("bnpo",)

#: What TRL has in the padding of these; `vespo` sums the logarithm of the ratio over padding too.
PADDED_WITH_ONE = ("tool_mask", "importance_sampling_ratio")


class RowBlock(dict[str, Any]):
    """Rows of one domain that go through the model together, in the form `GRPOTrainer` computes a loss on.

    Attributes:
        domain: index into the sorted domain names.
        ends_domain: whether the domain's gradient is complete after this block.
        loss_scale: factor that makes TRL's loss of these rows their part of TRL's loss of the whole micro-batch.
        token_scale: the same for terms that are a mean over the micro-batch's tokens (the entropy bonus).
        row_scale: the same for terms that are a mean over its rows (the router's auxiliary loss), which does see rows
            that only fill up the count.

    Such rows add no weight: in means over tokens, too, a micro-batch counts by its real rows.
    """

    domain: int
    ends_domain: bool
    loss_scale: float | Tensor = 1.0
    token_scale: float | Tensor = 1.0
    row_scale: float = 1.0


def scale_loss(loss: Tensor, block: RowBlock, means: Sequence[tuple[Tensor | None, float | Tensor]]) -> Tensor:
    """A block's part of its micro-batch's loss.

    Args:
        loss: TRL's loss of the block alone, a scalar.
        block: with the scale of its rows' losses.
        means: what other terms of the loss are linear in, or None, and the scale of each.
    """
    scaled = loss * block.loss_scale
    for value, scale in means:
        excess = scale - block.loss_scale
        if value is None or not value.requires_grad or (isinstance(excess, float) and excess == 0.0):
            continue
        # From the loss back to the value, not into the model; None: this run's loss has no such term.
        (slope,) = torch.autograd.grad(loss, value, retain_graph=True, allow_unused=True)
        if slope is not None:
            scaled = scaled + excess * (slope * value).sum()
    return scaled


@dataclass(frozen=True)
class WindowShape:
    """What cutting a window needs to know of the configuration."""

    micro_batch_size: int
    gradient_accumulation_steps: int
    loss_type: str
    trims_prompts: bool = False  # the policy's positions are relative
    width_multiple: int = 1


def check_rows(rows: dict[str, Any]) -> None:
    """Refuse what cannot be dealt to ranks and blocks row by row, such as the images that a tool answers with.

    Args:
        rows: a scored generation batch, as TRL has it.

    Raises:
        ValueError: names it.
    """
    for name, value in rows.items():
        if not isinstance(value, Tensor) or (value.dim() > 0 and len(value) != len(rows["completion_ids"])):
            raise ValueError(
                f"the rollouts hold {name!r}, but multi-domain training takes only tensors with a row for each "
                "completion, and so no images."
            )


def gather_rows(accelerator: Accelerator, rows: dict[str, Any], pad_token_id: int) -> dict[str, Any]:
    """All ranks' rows on every rank, padded to common widths the way TRL pads: prompts left, completions right."""
    if accelerator.num_processes == 1:
        return rows
    gathered = {}
    for name in sorted(rows):
        value = rows[name]
        if not isinstance(value, Tensor) or value.dim() == 0:
            gathered[name] = value
            continue
        if value.dim() > 1:
            fill = pad_token_id if name in ("prompt_ids", "completion_ids") else int(name in PADDED_WITH_ONE)
            value = accelerator.pad_across_processes(
                value, dim=1, pad_index=fill, pad_first=name in ("prompt_ids", "prompt_mask")
            )
        gathered[name] = accelerator.gather(value)
    return gathered


def cut_windows(
    rows: dict[str, Any], domains: Sequence[int], windows: int, shape: WindowShape, rank: int, ranks: int
) -> tuple[list[list[RowBlock]], float]:
    """The row blocks of every training step of a generation batch, for one rank.

    Args:
        rows: the generation batch over all ranks: tensors with a row per completion, or scalars.
        domains: domain index of each row; rows of window w are the w-th of `windows` equal parts.
        windows: windows in the generation batch.
        shape: how a window is cut.
        rank, ranks: this data-parallel rank, and how many there are.

    Returns:
        For each training step its row blocks; and the token imbalance between ranks (worst window).
    """
    prompts, lengths = (rows[f"{part}_mask"].sum(1).tolist() for part in ("prompt", "completion"))
    size = len(domains) // windows
    steps: list[list[RowBlock]] = []
    imbalance = 0.0
    for w in range(windows):
        window = slice(w * size, (w + 1) * size)
        present = sorted(set(domains[window]))
        counts = [list(domains[window]).count(d) for d in present]
        plan = plan_window(counts, ranks, shape.micro_batch_size, shape.gradient_accumulation_steps)
        deals = deal_rows(domains[window], lengths[window], ranks)
        imbalance = max(imbalance, token_imbalance(lengths[window], [deal.rows for deal in deals]))
        mine = _select(rows, deals[rank], offset=w * size)
        my_lengths = [(prompts[w * size + row], lengths[w * size + row]) for row in deals[rank].rows]
        for ranges in plan.micro_steps:
            blocks = _micro_step(mine, my_lengths, deals[rank].real, ranges, shape)
            for block, part in zip(blocks, ranges, strict=True):
                block.domain, block.ends_domain = present[part.domain], part.ends_domain
            steps.append(blocks)
    return steps, imbalance


def _select(rows: dict[str, Any], deal: Deal, offset: int) -> dict[str, Any]:
    device = rows["completion_ids"].device
    index = torch.tensor(deal.rows, device=device) + offset
    selected = {
        name: value[index] if isinstance(value, Tensor) and value.dim() > 0 else value for name, value in rows.items()
    }
    if not all(deal.real):
        # A filler row goes through the model like any other but has no token in the loss: that is what TRL's tool
        # mask says of tokens the policy did not write. Its attention stays the real row's, so nothing overflows.
        real = torch.tensor(deal.real, device=device)
        mask = selected.get("tool_mask", torch.ones_like(selected["completion_mask"]))
        selected["tool_mask"] = mask * real[:, None].to(mask.dtype)
        selected["advantages"][~real] = 0  # of a row, or, from a subclass, of each of its tokens
    return selected


def _micro_step(
    rows: dict[str, Any],
    lengths: Sequence[tuple[int, int]],
    real: Sequence[bool],
    ranges: Sequence[RowRange],
    shape: WindowShape,
) -> list[RowBlock]:
    size = shape.micro_batch_size
    blocks = [_block(rows, lengths, part, shape) for part in ranges]
    for block, part in zip(blocks, ranges, strict=True):
        block.row_scale = sum(real[part.start : part.stop]) / size
    if len(blocks) == 1 and blocks[0].row_scale == 1.0:
        return blocks
    loss_mask = rows["completion_mask"] * rows["tool_mask"] if "tool_mask" in rows else rows["completion_mask"]
    tokens = [loss_mask[part.start : part.stop].sum() for part in ranges]
    for block, part, count in zip(blocks, ranges, tokens, strict=True):
        # A micro-step may take two micro-batches, each with a mean of its own, which counts by its real rows.
        together = [i for i, other in enumerate(ranges) if other.start // size == part.start // size]
        all_tokens = torch.stack([tokens[i] for i in together]).sum().clamp(min=1)
        share = sum(blocks[i].row_scale for i in together) or 1.0
        block.token_scale = share * count.clamp(min=1) / all_tokens
        if shape.loss_type in TOKEN_MEAN_LOSSES:
            block.loss_scale = block.token_scale
        elif shape.loss_type in ROW_MEAN_LOSSES:
            block.loss_scale = (part.stop - part.start) / size
    return blocks


def _block(rows: dict[str, Any], lengths: Sequence[tuple[int, int]], part: RowRange, shape: WindowShape) -> RowBlock:
    """Rows `part.start` to `part.stop`, no wider than they need to be."""
    here = slice(part.start, part.stop)
    cut = {
        name: value[here] if isinstance(value, Tensor) and value.dim() > 0 else value for name, value in rows.items()
    }
    prompts, completions = zip(*lengths[here], strict=True)
    return RowBlock(trim(cut, prompts if shape.trims_prompts else (), completions, shape.width_multiple))
