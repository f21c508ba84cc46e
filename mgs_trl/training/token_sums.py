"""Entropy and KL of each domain's tokens, summed over the blocks between two logs."""

from collections.abc import Sequence
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor

from mgs_trl.training.window import RowBlock


class TokenSums:
    """Sums over tokens that the policy wrote; TRL's own are means of blocks, each block alike.

    Args:
        domains: how many there are.
        corrected, by_sequence: how TRL takes the KL; see `kl_of_tokens`.
    """

    def __init__(self, domains: int, corrected: bool, by_sequence: bool):
        self.domains = domains
        self.corrected = corrected
        self.by_sequence = by_sequence
        self._sums: Tensor | None = None  # float64 [T, 3]: entropy, KL and tokens

    def add(self, block: RowBlock, logps: Tensor, entropies: Tensor) -> None:
        """Add a block's tokens; log-probabilities and entropies are `[B, C]`, without gradients."""
        if self._sums is None:
            self._sums = torch.zeros(self.domains, 3, dtype=torch.float64, device=logps.device)
        mask = block["completion_mask"] * block.get("tool_mask", 1)
        sums = self._sums[block.domain]
        sums[0] += (entropies * mask).sum()
        if "ref_per_token_logps" in block:
            sums[1] += (kl_of_tokens(block, logps, mask, self.corrected, self.by_sequence) * mask).sum()
        sums[2] += mask.sum()

    def take(self, accelerator: Accelerator) -> Sequence[Sequence[float]]:
        """Entropy, KL and number of tokens of each domain over all ranks, which are forgotten; nothing without any.

        Every rank must call it.
        """
        if self._sums is None:
            return []
        sums, self._sums = cast(Tensor, accelerator.reduce(self._sums, reduction="sum")), None
        return sums.tolist()


def kl_of_tokens(rows: dict[str, Tensor], logps: Tensor, mask: Tensor, corrected: bool, by_sequence: bool) -> Tensor:
    """TRL's estimate of the KL divergence at every token, of which its `kl` is the mean.

    Args:
        rows: as TRL computes a loss on, with `ref_per_token_logps`.
        logps, mask: of the policy, and of the tokens that it wrote, `[B, C]`.
        corrected: `use_bias_correction_kl`; the estimate times the importance ratio, which is one without old
            log-probabilities.
        by_sequence: the ratio is the sequence's (`importance_sampling_level`).

    Returns:
        `[B, C]`, in nats.
    """
    ratio = rows["ref_per_token_logps"] - logps
    kl = ratio.exp() - ratio - 1
    if not corrected or "old_per_token_logps" not in rows:
        return kl
    drift = logps - rows["old_per_token_logps"]
    if by_sequence:
        drift = ((drift * mask).sum(1) / mask.sum(1).clamp(min=1)).unsqueeze(1)
    return kl * drift.exp()
