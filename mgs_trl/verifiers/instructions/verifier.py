"""The instruction-following verifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from mgs_trl.verifiers.base import Batch, IsolatedVerifier, Score
from mgs_trl.verifiers.instructions.rows import parse_row

Reward = Literal["fraction", "all"]
Mode = Literal["strict", "loose"]


class IFEvalVerifier(IsolatedVerifier):
    """How many of a row's constraints its response follows.

    `reward`: "fraction" satisfied (the paper's) or "all" (1.0 only if every one is). `mode`: "strict"
    judges the response as it is, "loose" as in the benchmark. Rows: `instruction_id_list` + `kwargs`, or
    `ground_truth` (rows.py). An unknown id or a missing argument is an error, in `validate_rows` and when a
    row is scored, never a zero.
    """

    label = "ifeval"
    default_domains = ("instruction_following", "ifeval", "if")
    column_choices = (("instruction_id_list", "kwargs"), ("instruction_id_list",), ("ground_truth",))
    target = "mgs_trl.verifiers.instructions.judge:judge"

    def __init__(
        self,
        domain: str | Sequence[str] | None = None,
        *,
        reward: Reward = "fraction",
        mode: Mode = "strict",
        **options: Any,
    ) -> None:
        super().__init__(domain, **options)
        if reward not in get_args(Reward):
            raise ValueError(f"reward must be one of {', '.join(get_args(Reward))}, got {reward!r}")
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
        self.reward, self.mode = reward, mode

    def validate_row(self, row: Mapping[str, Any]) -> None:
        parse_row(row)

    def _arguments(self, batch: Batch, index: int) -> tuple:
        try:
            constraints = parse_row(batch.row(index))
        except ValueError as error:
            raise ValueError(f"verifier {self.__name__!r}, sample {index}: {error}") from None
        return (batch.text(index), constraints, self.mode == "loose")

    def _finish(self, batch: Batch, values: Mapping[int, Any]) -> dict[int, Score]:
        followed: list[str | None] = [None] * len(batch.completions)
        scores: dict[int, Score] = {}
        for index, results in values.items():
            names = [name for name, _ in parse_row(batch.row(index))]
            followed[index] = " ".join(f"{name}={int(ok)}" for name, ok in zip(names, results, strict=True))
            scores[index] = float(all(results)) if self.reward == "all" else sum(results) / len(results)
        batch.extras["followed"] = followed
        return scores


ifeval_verifier = IFEvalVerifier()
"""Ready to be used as a TRL reward function: rows of domain "instruction_following", "ifeval" or "if"."""
