"""What one optimizer step's Gramians say: cosines, norms, conflicts, and what surgery removed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def cosines(gramian: Tensor) -> Tensor:
    """Cosine of every pair of domain gradients; 0 where one of them is zero.

    Args:
        gramian: `[..., T, T]`.
    """
    norms = gramian.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    scale = norms[..., :, None] * norms[..., None, :]
    return torch.where(scale > 0, gramian / torch.where(scale > 0, scale, 1.0), 0.0)


@dataclass(frozen=True)
class ConflictReport:
    """The Gramians of one step and the weights that were taken from them.

    Attributes:
        step: optimizer step.
        domains: names, sorted; the order of every T below.
        modules, kinds: name and kind of each module; the order of every M below.
        gramian: float64 `[M, T, T]`.
        weights: float64 `[M, T]`; the combined gradient of module m is `sum_d weights[m, d] g_d`.
        dropped: domains whose gradient was not finite; their weights are zero, or one where the rule changes nothing.
    """

    step: int
    domains: tuple[str, ...]
    modules: tuple[str, ...]
    kinds: tuple[str, ...]
    gramian: Tensor
    weights: Tensor
    dropped: tuple[str, ...] = ()

    @property
    def total(self) -> Tensor:
        """Gramian of the whole gradient: the sum over modules. float64 `[T, T]`."""
        return self.gramian.sum(0)

    def cosines(self) -> Tensor:
        """Per module. float64 `[M, T, T]`."""
        return cosines(self.gramian)

    def norms(self) -> Tensor:
        """Norm of each domain gradient in each module. float64 `[M, T]`."""
        return self.gramian.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()

    def conflicts(self) -> Tensor:
        """Whether the inner product of a pair is negative in a module. bool `[M, T, T]`."""
        return self.gramian < 0

    def by_kind(self) -> dict[str, Tensor]:
        """Gramian of each kind: the sum over its modules. float64 `[T, T]` by kind."""
        kinds = sorted(set(self.kinds))
        return {kind: self.gramian[[k == kind for k in self.kinds]].sum(0) for kind in kinds}

    def removed(self, gramian: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Norm of what surgery took from the plain sum, relative to the plain sum, per module. float64 `[M]`.

        Zero where the plain sum is zero and nothing was removed, infinite where it is zero and something was.
        """
        gramian = self.gramian if gramian is None else gramian
        difference = 1.0 - (self.weights if weights is None else weights)
        changed = torch.einsum("md,mde,me->m", difference, gramian, difference).clamp(min=0)
        plain = gramian.sum((1, 2)).clamp(min=0)
        return _relative_norm(changed, plain)

    def removed_overall(self) -> float:
        """`removed` of the whole gradient."""
        difference = 1.0 - self.weights
        changed = torch.einsum("md,mde,me->", difference, self.gramian, difference).clamp(min=0)
        return float(_relative_norm(changed, self.total.sum().clamp(min=0)))

    def mean_weights(self) -> Tensor:
        """The constant weight per domain that surgery amounted to: the mean of `weights` over modules, each module
        counted by the squared norm of the domain's gradient in it. float64 `[T]`."""
        squares = self.gramian.diagonal(dim1=1, dim2=2)
        total = squares.sum(0)
        return torch.where(
            total > 0,
            (self.weights * squares).sum(0) / torch.where(total > 0, total, 1.0),
            self.weights.mean(0),
        )

    def metrics(self) -> dict[str, float]:
        """Scalars for a tracker, named as docs/metrics.md says."""
        overall = cosines(self.total)
        conflicts = self.conflicts()
        weights = self.mean_weights().tolist()
        result = {}
        for i, a in enumerate(self.domains):
            result[f"domain/{a}/grad_norm"] = float(self.total[i, i].clamp(min=0).sqrt())
            result[f"surgery/weight/{a}"] = weights[i]
            for j in range(i + 1, len(self.domains)):
                pair = f"conflict/{a}~{self.domains[j]}"
                result[f"{pair}/cosine"] = float(overall[i, j])
                result[f"{pair}/share"] = float(conflicts[:, i, j].double().mean())
        result["surgery/removed"] = self.removed_overall()
        return result

    def to_json(self) -> dict[str, Any]:
        """One line of `conflicts.jsonl`: everything above follows from it."""
        return {
            "step": self.step,
            "domains": list(self.domains),
            "modules": list(self.modules),
            "kinds": list(self.kinds),
            "gramian": self.gramian.tolist(),
            "weights": self.weights.tolist(),
            "dropped": list(self.dropped),
        }


def _relative_norm(changed: Tensor, plain: Tensor) -> Tensor:
    ratio = (changed / torch.where(plain > 0, plain, 1.0)).sqrt()
    return torch.where(plain > 0, ratio, torch.where(changed > 0, torch.inf, 0.0))
