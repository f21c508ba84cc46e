"""Advantages whose statistics never cross domains.

TRL's `scale_rewards="batch"` and `multi_objective_aggregation="normalize_then_sum"` take means and standard deviations
over the whole batch. In a mixed batch that divides a 0/1 math reward by the spread of a reward model's logits, so here
the same formulas are applied to each domain's rows alone.
"""

import torch
from torch import Tensor
from trl.trainer.utils import nanstd


def needs_domain_statistics(scale_rewards: str, aggregation: str) -> bool:
    """Whether TRL's own advantages would mix statistics of domains."""
    return aggregation == "normalize_then_sum" or scale_rewards == "batch"


def domain_advantages(
    rewards_per_func: Tensor,
    reward_weights: Tensor,
    domains: Tensor,
    num_generations: int,
    aggregation: str,
) -> tuple[Tensor, Tensor]:
    """Advantages with statistics over the rows of the same domain.

    Args:
        rewards_per_func: `[B, F]` over all ranks; NaN where a verifier does not apply. Prompt groups are consecutive.
        reward_weights: `[F]`.
        domains: `[B]` domain index.
        num_generations: completions per prompt.
        aggregation: `sum_then_normalize` (with `scale_rewards="batch"`) or `normalize_then_sum`.

    Returns:
        `[B]`, zero for rows that nothing scored; and `[B]`, whether the rewards of the row's domain are all equal.
    """
    advantages = torch.zeros_like(rewards_per_func[:, 0])
    flat = torch.zeros_like(advantages, dtype=torch.bool)
    for d in domains.unique().tolist():
        mine = domains == d
        scores = rewards_per_func[mine]
        unscored = scores.isnan().all(dim=1)
        if aggregation == "sum_then_normalize":
            rewards = (scores * reward_weights).nansum(dim=1).masked_fill(unscored, torch.nan)
            groups = rewards.view(-1, num_generations)
            centred = (groups - groups.nanmean(dim=1, keepdim=True)).view(-1)
            advantages[mine] = centred / (nanstd(rewards) + 1e-4)
        else:
            groups = scores.view(-1, num_generations, scores.size(1))
            spread = nanstd(groups, dim=1, keepdim=True)
            normalized = ((groups - groups.nanmean(dim=1, keepdim=True)) / (spread + 1e-4)).view(-1, scores.size(1))
            rewards = (normalized * reward_weights).nansum(dim=1).masked_fill(unscored, torch.nan)
            advantages[mine] = (rewards - rewards.nanmean()) / (nanstd(rewards) + 1e-4)
        flat[mine] = torch.isclose(nanstd(rewards), rewards.new_zeros(()))
    return torch.nan_to_num(advantages, nan=0.0), flat
