"""What a handful of seeds can say: means, standard errors, and paired differences with confidence intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mgs_trl.report.statistics import chance_beyond

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """Mean of `n` values and the standard error of that mean; NaN where there are too few values."""

    mean: float
    error: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean paired difference over `n` seeds, its confidence interval, and in how many seeds it is positive."""

    mean: float
    error: float
    low: float
    high: float
    n: int
    positive: int


def mean(values: Sequence[float]) -> Mean:
    """Mean and standard error (sample standard deviation, `n - 1`)."""
    n = len(values)
    if n == 0:
        return Mean(math.nan, math.nan, 0)
    average = math.fsum(values) / n
    if n == 1:
        return Mean(average, math.nan, 1)
    variance = math.fsum((value - average) ** 2 for value in values) / (n - 1)
    return Mean(average, math.sqrt(variance / n), n)


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """`first` minus `second`, both by seed, over the seeds that both have; Student's 95 % interval."""
    seeds = sorted(first.keys() & second.keys())
    differences = [first[seed] - second[seed] for seed in seeds]
    summary = mean(differences)
    half = summary.error * t_quantile(summary.n - 1) if summary.n > 1 else math.nan
    positive = sum(difference > 0 for difference in differences)
    return Difference(summary.mean, summary.error, summary.mean - half, summary.mean + half, summary.n, positive)


def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """How many standard errors a two-sided interval of Student's t with `freedom` degrees of freedom spans."""
    tail, low, high = (1 - confidence) / 2, 0.0, 1.0
    while chance_beyond(high, freedom + 1) > tail:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chance_beyond(middle, freedom + 1) > tail else (low, middle)
    return (low + high) / 2
