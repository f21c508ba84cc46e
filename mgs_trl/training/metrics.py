"""Running sums of per-domain metrics, so that what is logged is a mean over rows, not a mean of batch means."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from trl.trainer.utils import nanstd


class DomainMetrics:
    """Sums and counts by metric name; `flush` gives the means and starts anew."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        self._largest: dict[str, float] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Add one value per row; NaN rows (not scored) are left out."""
        values = values.double()
        values = values[~values.isnan()]
        if values.numel():
            sums = self._sums[name]
            sums[0] += values.sum().item()
            sums[1] += values.square().sum().item()
            sums[2] += values.numel()

    def add_sum(self, name: str, total: float, count: float) -> None:
        """Add a total over `count` items."""
        if count > 0:
            self._sums[name][0] += total
            self._sums[name][2] += count

    def add_largest(self, name: str, values: Tensor) -> None:
        """Of these values, and of all since the last `flush`, the largest."""
        if values.numel():
            self._largest[name] = max(values.max().item(), self._largest.get(name, -math.inf))

    def flush(self) -> dict[str, float]:
        """Means and largest values by name since the last call.

        For a name `.../reward` also the standard deviation, `.../reward_std`.
        """
        result = {}
        for name, (total, squares, count) in self._sums.items():
            result[name] = total / count
            if name.endswith("/reward") and count > 1:
                variance = (squares - total * total / count) / (count - 1)
                result[f"{name}_std"] = math.sqrt(max(variance, 0.0))
        result.update(self._largest)
        self._sums.clear()
        self._largest.clear()
        return result


def add_rollout_metrics(
    metrics: DomainMetrics,
    names: Sequence[str],
    domains: Tensor,
    rewards: Tensor,
    lengths: Tensor,
    clipped: Tensor,
    infinite: Tensor,
    num_generations: int,
) -> None:
    """Add one scored batch, over all ranks.

    Args:
        metrics: where to add.
        names: sorted domain names.
        domains, rewards, lengths, clipped, infinite: per completion: domain index (-1: counted nowhere), weighted
            reward (NaN where nothing scored it), tokens, whether it was cut at the maximum length, whether a verifier
            gave it an infinite reward. Prompt groups are consecutive.
        num_generations: completions per prompt.
    """
    group_std = nanstd(rewards.view(-1, num_generations), dim=1)
    group_domain = domains.view(-1, num_generations)[:, 0]
    for d, name in enumerate(names):
        mine = domains == d
        metrics.add(f"domain/{name}/reward", rewards[mine])
        metrics.add(f"domain/{name}/mean_length", lengths[mine])
        metrics.add_largest(f"domain/{name}/max_length", lengths[mine])
        metrics.add_sum(f"domain/{name}/tokens", lengths[mine].sum().item(), int(mine.any()))
        metrics.add(f"domain/{name}/clipped_ratio", clipped[mine].float())
        metrics.add(f"domain/{name}/unscored_ratio", rewards[mine].isnan().float())
        metrics.add(f"domain/{name}/infinite_ratio", infinite[mine].float())
        if num_generations > 1:
            std = group_std[group_domain == d]
            metrics.add(f"domain/{name}/frac_zero_std", torch.isclose(std, torch.zeros_like(std)).float())


def rows_met_first(total: int, rows: int) -> int:
    """How many rows of the last evaluation batch come before those that fill it up, which were in the first batch.

    Args:
        total: rows of the whole evaluation.
        rows: of every batch, over all ranks.
    """
    return total % rows or rows
