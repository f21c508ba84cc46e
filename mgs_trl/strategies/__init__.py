"""Strategies: how the domains of a recipe are trained together."""

from mgs_trl.strategies.fields import (
    OPTIONS,
    STRATEGIES,
    Options,
    Strategy,
    mean_weights,
    strategy_fields,
    strategy_of,
    trained_domains,
)

__all__ = [
    "OPTIONS",
    "STRATEGIES",
    "Options",
    "Strategy",
    "mean_weights",
    "strategy_fields",
    "strategy_of",
    "trained_domains",
]
