"""What surgery amounted to: the weights of the domain gradients, beside the constant weights that are nearest to them.

Where one constant weight per domain says nearly all of it, surgery was a reweighting of the domains, and a run with
those weights is the control to train.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class WeightSums:
    """Sums over steps of weights and their squares, each counted by the squared norm of the domain's gradient there.

    Then the mean is the constant `c` that is nearest to the weights in the domain's part of the update: it minimises
    the sum of `|w g_d - c g_d|^2` over steps and modules. A step in which a domain has nearly no gradient gets huge
    weights from a projection, which move nothing; they do not count here, as they would in a plain mean over steps.
    Every domain counts alike.
    """

    def __init__(self, modules: int, domains: int):
        self._squares = np.zeros((modules, domains))  # |g_d|^2
        self._moved = np.zeros((modules, domains))  # of v = w - 1, which sums without cancellation near 1
        self._moved_squares = np.zeros((modules, domains))
        self._gramian = np.zeros((domains, domains))
        self._projected = np.zeros(domains)  # sum of G v
        self._change = 0.0  # sum of v G v: the squared norm of what surgery changed

    def add(self, gramian: Array, weights: Array) -> Array:
        """One step; returns the mean weight of each domain in it, `[T]` (1 without a gradient)."""
        squares = np.maximum(np.diagonal(gramian, axis1=1, axis2=2), 0.0)
        total = squares.sum(0)
        moved = np.where(total > 0, weights - 1.0, 0.0)
        self._squares += squares
        self._moved += squares * moved
        self._moved_squares += squares * moved**2
        projected = np.einsum("mde,me->md", gramian, moved)
        self._gramian += gramian.sum(0)
        self._projected += projected.sum(0)
        self._change += float((moved * projected).sum())
        return 1.0 + np.divide((squares * moved).sum(0), total, out=np.zeros_like(total), where=total > 0)

    def constant(self) -> Array:
        """The constant weight of each domain that is nearest to what surgery did, `[T]`; NaN without gradients."""
        return 1.0 + _ratio(self._moved.sum(0), self._squares.sum(0))

    def by_group(self, membership: Array) -> tuple[Array, Array, Array]:
        """Mean, standard deviation (over modules and steps) and share of the squared norm; each `[groups, T]`.

        Args:
            membership: 1.0 where a module is in a group, `[groups, M]`.
        """
        share, moved, square = self._grouped(membership)
        mean = _ratio(moved, share)
        spread = np.sqrt(np.maximum(_ratio(square, share) - mean**2, 0.0))
        return 1.0 + mean, spread, share

    def departure(self) -> float:
        """Root of the mean squared difference of the weights from 1, the plain sum."""
        share, _, square = self._grouped(np.ones((1, len(self._squares))))
        return float(np.sqrt(square.sum() / max(share.sum(), 1.0)))

    def explained(self, membership: Array) -> float:
        """Share of the weights' squared departure from 1 that a constant weight per domain and group explains.

        Args:
            membership: 1.0 where a module is in a group, `[groups, M]`: one row of ones for a constant per domain.

        Returns:
            In [0, 1]; NaN if all weights are 1.
        """
        share, moved, square = self._grouped(membership)
        by_constant = np.divide(moved**2, share, out=np.zeros_like(share), where=share > 0)
        return float(by_constant.sum() / square.sum()) if self.changed else float("nan")

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
        return bool(self._moved_squares.sum() > 0)

    def _grouped(self, membership: Array) -> tuple[Array, Array, Array]:
        """Sums of each group, relative to the domain's squared norm over the run."""
        total = self._squares.sum(0)
        scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
        sums = (self._squares, self._moved, self._moved_squares)
        share, moved, square = ((membership @ values) * scale for values in sums)
        return share, moved, square


def _ratio(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
