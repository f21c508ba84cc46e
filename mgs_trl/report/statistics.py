"""Telling a conflict from noise: means over steps, their standard errors, and what chance alone would give."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class RunningMean:
    """Mean over steps of many numbers at once, with the standard error of that mean. Holds no step.

    Gradients of successive steps belong to nearly the same policy, so their inner products can be correlated in time.
    Where the correlation `r` of neighbouring steps is positive, the standard error of independent steps is widened by
    `sqrt((1 + r) / (1 - r))`, as for a first-order autoregressive series.

    Args:
        shape: of the numbers.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.count = np.zeros(shape)
        self._pairs = np.zeros(shape)
        self._origin = np.zeros(shape)  # the first value: sums of differences from it do not cancel
        self._sum, self._squares, self._products = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._heads, self._tails = np.zeros(shape), np.zeros(shape)
        self._last, self._has_last = np.zeros(shape), np.zeros(shape, dtype=bool)

    def add(self, values: Array, valid: NDArray[np.bool_]) -> None:
        """One step. Values that are not `valid` are left out, and break the series of neighbours."""
        self._origin = np.where(valid & (self.count == 0), values, self._origin)
        shifted = np.where(valid, values - self._origin, 0.0)
        neighbours = valid & self._has_last
        self.count += valid
        self._sum += shifted
        self._squares += shifted**2
        self._pairs += neighbours
        self._products += np.where(neighbours, shifted * self._last, 0.0)
        self._heads += np.where(neighbours, self._last, 0.0)
        self._tails += np.where(neighbours, shifted, 0.0)
        self._last, self._has_last = shifted, valid

    def mean(self) -> Array:
        """NaN where nothing was added."""
        return self._origin + self._shifted_mean()

    def standard_error(self) -> Array:
        """Of the mean; NaN with fewer than two steps."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(self._variance() / self.count) * np.sqrt((1 + self.correlation()) / (1 - self.correlation()))

    def correlation(self) -> Array:
        """Of neighbouring steps, in [0, 0.99]: negative estimates count as 0."""
        mean = np.nan_to_num(self._shifted_mean())
        covariance = self._products - mean * (self._heads + self._tails) + self._pairs * mean**2
        squares = self._squares - self.count * mean**2
        ratio = np.divide(covariance, squares, out=np.zeros_like(squares), where=squares > 0)
        return np.clip(ratio, 0.0, 0.99)

    def _shifted_mean(self) -> Array:
        return np.divide(self._sum, self.count, out=np.full(self.count.shape, np.nan), where=self.count > 0)

    def _variance(self) -> Array:
        mean = self._shifted_mean()
        squares = np.maximum(self._squares - self.count * mean**2, 0.0)
        return np.divide(squares, self.count - 1, out=np.full(squares.shape, np.nan), where=self.count > 1)


def chance_beyond(errors: float, steps: float) -> float:
    """Probability that the mean of `steps` values around zero lies more than `errors` standard errors below it.

    The lower tail of Student's t distribution with `steps - 1` degrees of freedom, by quadrature.
    """
    freedom = steps - 1
    if freedom <= 0:
        return 0.5
    # t = errors + u / (1 - u) maps the tail onto [0, 1).
    u = np.linspace(0.0, 1.0, 20001)[:-1] + 0.5 / 20000
    t = errors + u / (1 - u)
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    log_density = log_scale - (freedom + 1) / 2 * np.log1p(t**2 / freedom)
    return float(np.mean(np.exp(log_density) / (1 - u) ** 2))


def relative_norm(changed: float, plain: float) -> float:
    """Norm of a change relative to the plain sum's, from their squares; NaN where the plain sum is zero."""
    return math.sqrt(max(changed, 0.0) / plain) if plain > 0 else math.nan
