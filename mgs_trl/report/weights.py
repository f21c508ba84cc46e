"""What surgery amounted to: the weights of the domain gradients, beside the constant weights that are nearest to them.

Where one constant weight per domain says nearly all of it, surgery was a reweighting of the domains, and a run with
those weights is the control to train.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class WeightSums:
    """Sums over steps of weights and their squares, each counted by its share of the domain's squared gradient norm.

    The share of module m for domain d at a step is `|g_d|^2 on m / |g_d|^2`: shares of a step sum to 1, so the mean
    over modules is `ConflictReport.mean_weights`, and every step and domain counts alike.
    """

    def __init__(self, modules: int, domains: int):
        self._share = np.zeros((modules, domains))
        self._moved = np.zeros((modules, domains))  # of v = w - 1, which sums without cancellation near 1
        self._square = np.zeros((modules, domains))
        self._gramian = np.zeros((domains, domains))
        self._projected = np.zeros(domains)  # sum of G v
        self._change = 0.0  # sum of v G v: the squared norm of what surgery changed

    def add(self, gramian: Array, weights: Array) -> Array:
        """One step; returns the mean weight of each domain in it, `[T]` (1 without a gradient)."""
        squares = np.maximum(np.diagonal(gramian, axis1=1, axis2=2), 0.0)
        total = squares.sum(0)
        share = np.divide(squares, total, out=np.zeros_like(squares), where=total > 0)
        moved = np.where(total > 0, weights - 1.0, 0.0)
        self._share += share
        self._moved += share * moved
        self._square += share * moved**2
        projected = np.einsum("mde,me->md", gramian, moved)
        self._gramian += gramian.sum(0)
        self._projected += projected.sum(0)
        self._change += float((moved * projected).sum())
        return 1.0 + (share * moved).sum(0)

    def constant(self) -> Array:
        """The constant weight of each domain: the mean over the run, `[T]`; NaN without gradients."""
        return 1.0 + _ratio(self._moved.sum(0), self._share.sum(0))

    def by_group(self, membership: Array) -> tuple[Array, Array, Array]:
        """Mean, standard deviation (over modules and steps) and share of the squared norm; each `[groups, T]`.

        Args:
            membership: 1.0 where a module is in a group, `[groups, M]`.
        """
        share, moved, square = self._grouped(membership)
        mean = _ratio(moved, share)
        spread = np.sqrt(np.maximum(_ratio(square, share) - mean**2, 0.0))
        return 1.0 + mean, spread, _ratio(share, np.broadcast_to(self._share.sum(0), share.shape))

    def departure(self) -> float:
        """Root of the mean squared difference of the weights from 1, the plain sum."""
        return float(np.sqrt(self._square.sum() / max(self._share.sum(), 1.0)))

    def explained(self, membership: Array) -> float:
        """Share of the weights' squared departure from 1 that a constant weight per domain and group explains.

        Args:
            membership: 1.0 where a module is in a group, `[groups, M]`: one row of ones for a constant per domain.

        Returns:
            In [0, 1]; NaN if all weights are 1.
        """
        share, moved, _ = self._grouped(membership)
        by_constant = np.divide(moved**2, share, out=np.zeros_like(share), where=share > 0)
        return float(by_constant.sum() / self._square.sum()) if self.changed else float("nan")

    def explained_update(self) -> float:
        """Share of the squared norm of surgery's change to the update that the best constant weights reproduce.

        The best weights in the sense of least squares over steps and modules; large gradients count more.
        """
        if self._change <= 0:
            return float("nan")
        best = np.linalg.lstsq(self._gramian, self._projected, rcond=None)[0]
        return float(np.clip(best @ self._projected / self._change, 0.0, 1.0))

    @property
    def changed(self) -> bool:
        """Whether any weight was not 1."""
        return bool(self._square.sum() > 0)

    def _grouped(self, membership: Array) -> tuple[Array, Array, Array]:
        return membership @ self._share, membership @ self._moved, membership @ self._square


def _ratio(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
