"""Log-probabilities under each row's own temperature.

TRL puts one temperature into the model's fused LM head when the trainer is built. Here the model gets a head for every
temperature, and a call takes the one that was chosen. The private name used, verified with trl 1.16.0, is
`trl.trainer.grpo_trainer.add_fused_lm_head`, which sets `model.forward`.
"""

import functools
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trl.trainer.grpo_trainer as grpo


class TemperatureChoice:
    """The temperature of the rows that are scored now; None is the one that the trainer was built with."""

    def __init__(self) -> None:
        self.current: float | None = None

    @contextmanager
    def use(self, temperature: float) -> Iterator[None]:
        """Within it, log-probabilities are those at `temperature`."""
        self.current = temperature
        try:
            yield
        finally:
            self.current = None


@contextmanager
def temperature_heads(temperatures: Sequence[float], choice: TemperatureChoice) -> Iterator[None]:
    """While TRL builds its trainer: its models get a head for every temperature, if there are several.

    Args:
        temperatures: with the one that the trainer is built with.
    """
    if len(temperatures) < 2:
        yield
        return
    original = grpo.add_fused_lm_head

    def add_heads(model: Any, temperature: float = 1.0, **options: Any) -> None:
        plain, forwards = model.forward, {}
        for value in {*temperatures, temperature}:
            model.forward = plain
            original(model, temperature=value, **options)
            forwards[value] = model.forward

        @functools.wraps(type(model).forward)  # generation reads the signature
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            chosen = temperature if choice.current is None else choice.current
            return forwards[chosen](*args, **kwargs)

        model.forward = types.MethodType(forward, model)

    grpo.add_fused_lm_head = add_heads  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        grpo.add_fused_lm_head = original
