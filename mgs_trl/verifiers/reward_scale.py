"""What reward models have in common: the conversation they judge, and the mapping of their raw score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from mgs_trl.verifiers.base import Batch, Score, Verifier
from mgs_trl.verifiers.completions import Message, prompt_messages

Squash = Literal["none", "sigmoid", "tanh"]


class ScaledVerifier(Verifier):
    """A verifier whose raw score s becomes squash((s - shift) / scale), then is clipped.

    Constants, not running statistics: a score then means the same on every rank and at every step.
    """

    def __init__(
        self,
        domain: str | Sequence[str] | None = None,
        *,
        shift: float = 0.0,
        scale: float = 1.0,
        squash: Squash = "none",
        **options: Any,
    ) -> None:
        super().__init__(domain, **options)
        if not math.isfinite(shift):
            raise ValueError(f"shift must be finite, got {shift!r}")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be a positive number, got {scale!r}")
        if squash not in get_args(Squash):
            raise ValueError(f"squash must be one of {', '.join(get_args(Squash))}, got {squash!r}")
        self.shift, self.scale, self.squash = float(shift), float(scale), squash

    def _checked(self, batch: Batch, index: int, score: Score) -> Score:
        if isinstance(score, (int, float)) and math.isfinite(score):
            score = self.mapped(float(score))
        return super()._checked(batch, index, score)

    def mapped(self, raw: float) -> float:
        """The raw score shifted, scaled and squashed."""
        value = (raw - self.shift) / self.scale
        if self.squash == "sigmoid":
            return 0.5 * (1.0 + math.tanh(value / 2))
        return math.tanh(value) if self.squash == "tanh" else value


def conversation(batch: Batch, index: int) -> list[Message]:
    """The row's prompt as messages, then the answer without thinking as the assistant's."""
    return [*prompt_messages(batch.prompts[index]), {"role": "assistant", "content": batch.text(index)}]
