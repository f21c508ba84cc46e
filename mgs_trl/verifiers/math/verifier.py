"""The math verifier: 1.0 for an answer equal to the gold one, else 0.0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from mgs_trl.verifiers.base import Batch, IsolatedVerifier, Score, Verifier
from mgs_trl.verifiers.completions import completion_text
from mgs_trl.verifiers.math.judge import Fallback
from mgs_trl.verifiers.math.text import number_text
from mgs_trl.verifiers.thinking import follows_thinking_format


class MathVerifier(IsolatedVerifier):
    r"""Equality of the last boxed answer with the column `answer` (`column` names another), by math-verify:
    {0, 1}.

    `fallback`, where a completion has no box: "text" (math-verify's own extraction from the end of the
    answer), "last_line" or "none" (0.0). `format_bonus`: added when the whole completion is one `<think>`
    and one `<response>` block. `domain`: default "math".
    """

    label = "math_verify"
    default_domains = ("math",)
    target = "mgs_trl.verifiers.math.judge:judge"

    def __init__(
        self,
        domain: str | Sequence[str] | None = None,
        *,
        column: str = "answer",
        fallback: Fallback = "text",
        format_bonus: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(domain, **options)
        if fallback not in get_args(Fallback):
            raise ValueError(f"fallback must be one of {', '.join(get_args(Fallback))}, got {fallback!r}")
        if not math.isfinite(format_bonus):
            raise ValueError(f"format_bonus must be finite, got {format_bonus!r}")
        self.column, self.fallback, self.format_bonus = column, fallback, format_bonus
        self.column_choices = ((column,),)

    def validate_row(self, row: Mapping[str, Any]) -> None:
        gold = row[self.column]
        if isinstance(gold, bool) or not isinstance(gold, (str, int, float)) or not str(gold).strip():
            raise ValueError(f"{self.column} must be a non-empty text or a number, got {gold!r}")
        if isinstance(gold, float) and not math.isfinite(gold):
            raise ValueError(f"{self.column} must be a finite number, got {gold!r}")

    def _arguments(self, batch: Batch, index: int) -> tuple:
        return (batch.text(index), number_text(batch.row(index)[self.column]), self.fallback)

    def _finish(self, batch: Batch, values: Mapping[int, Any]) -> dict[int, Score]:
        if not self.format_bonus:
            return dict(values)
        return {
            index: value + self.format_bonus * follows_thinking_format(completion_text(batch.completions[index]))
            for index, value in values.items()
        }


class ThinkingFormat(Verifier):
    """1.0 for a completion that is exactly one block per tag of `tags`, in order; else 0.0."""

    label = "thinking_format"

    def __init__(
        self,
        domain: str | Sequence[str] | None = None,
        *,
        tags: Sequence[str] = ("think", "response"),
        **options: Any,
    ) -> None:
        super().__init__(domain, **options)
        if not tags or isinstance(tags, str):
            raise ValueError(f"tags must be a list of at least one tag, got {tags!r}")
        self.tags = tuple(tags)

    def _score(self, batch: Batch) -> list[Score]:
        texts = (completion_text(batch.completions[index]) for index in batch.indices)
        return [float(follows_thinking_format(text, self.tags)) for text in texts]


math_verifier = MathVerifier()
"""Ready to be used as a TRL reward function: rows of domain "math", or every row with an `answer` where no
domain is given."""
