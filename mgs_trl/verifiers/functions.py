"""Reward functions of the user's own as verifiers: isolated row by row, in process, or asynchronous."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mgs_trl.verifiers.base import Batch, IsolatedVerifier, Score, Verifier
from mgs_trl.verifiers.errors import VerifierError
from mgs_trl.verifiers.guard import (
    TRAINER_ARGUMENTS,
    columns_of,
    guard_reward,
    is_async,
    load_function,
    parameters_of,
    plain_number,
)

logger = logging.getLogger(__name__)


class IsolatedFunction(IsolatedVerifier):
    """`path` ("package.module:function"), called in a worker process with one row at a time, lists of
    length one.

    It sees what TRL passes (`prompts`, `completions`, `completion_ids`, the columns) but not the trainer's
    state and logging. A function that needs those, a GPU, or the whole batch at once is
    `FunctionVerifier`'s.
    """

    memory_mb = None

    def __init__(self, path: str, domain: str | Sequence[str] | None = None, **options: Any) -> None:
        function = load_function(path)  # a misspelt path fails here, not at the first batch
        if is_async(function):
            raise ValueError(f"verifier {path!r} is asynchronous and cannot be isolated, set isolated: false")
        asks = [name for name in parameters_of(function)[0] if name in TRAINER_ARGUMENTS]
        if asks:
            raise ValueError(f"verifier {path!r} needs {asks[0]}, which only this process has, set isolated: false")
        self.label = path.rpartition(":")[2]
        super().__init__(domain, **options)
        self.target = path
        self.column_choices = columns_of(function)

    def _arguments(self, batch: Batch, index: int) -> dict[str, Any]:
        row = {name: [value] for name, value in batch.row(index).items() if name not in TRAINER_ARGUMENTS}
        return {**row, "prompts": [batch.prompts[index]], "completions": [batch.completions[index]]}

    def _finish(self, batch: Batch, values: Mapping[int, Any]) -> dict[int, Score]:
        scores: dict[int, Score] = {}
        for index, value in values.items():
            value = value.tolist() if hasattr(value, "tolist") else value
            if isinstance(value, (list, tuple)) and len(value) == 1:
                scores[index] = plain_number(value[0])
            else:
                scores[index] = batch.error(index, f"returned {value!r} for one row, expected a list of one score")
        return scores


class FunctionVerifier(Verifier):
    """A function (or its "package.module:function") called in this process with the rows of its own domain.

    The type and length of its result are checked for all rows (guard.py), each score as every verifier's. There
    is no time limit: what hangs in this process cannot be killed.
    """

    def __init__(
        self, function: str | Callable[..., Any], domain: str | Sequence[str] | None = None, **options: Any
    ) -> None:
        loaded = load_function(function) if isinstance(function, str) else function
        self.label = getattr(loaded, "__name__", type(loaded).__name__)
        super().__init__(domain, **options)
        self.function = guard_reward(loaded, self.__name__, self.domain_column, finite=False)
        self.column_choices = columns_of(loaded)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[Score]:
        batch, own = self._own(prompts, completions, columns)
        scores: list[Score] = []
        if batch.indices:
            try:
                scores = self.function(**own)
            except VerifierError as error:
                scores = self._failed(batch, error)
        return self._report(batch, scores, columns)

    def _failed(self, batch: Batch, error: VerifierError) -> list[Score]:
        if self.on_error == "raise":
            raise error
        batch.counts["errors"] += len(batch.indices)
        logger.warning("%s; the batch is scored None", error)
        return [None] * len(batch.indices)

    def _report(self, batch: Batch, scores: list[Score], columns: dict[str, Any]) -> list[Score]:
        result = self._scatter(batch, scores)
        batch.report(columns)
        return result

    def _own(self, prompts: Sequence, completions: Sequence, columns: dict[str, Any]) -> tuple[Batch, dict[str, Any]]:
        """The batch, and what the function is called with: every per-row list cut to the own rows."""
        batch = Batch(self, prompts, completions, columns)
        cut = {name: [values[index] for index in batch.indices] for name, values in batch.columns.items()}
        own = {**columns, **cut}
        log_extra = columns.get("log_extra")
        if log_extra is not None:
            own["log_extra"] = lambda column, values: log_extra(column, self._scatter(batch, values, checked=False))
        own["prompts"] = [prompts[index] for index in batch.indices]
        own["completions"] = [completions[index] for index in batch.indices]
        return batch, own

    def _scatter(self, batch: Batch, values: Sequence[Any], checked: bool = True) -> list[Any]:
        result: list[Any] = [None] * len(batch.completions)
        for index, value in zip(batch.indices, values, strict=True):
            result[index] = self._checked(batch, index, value) if checked else value
        return result


class AsyncFunctionVerifier(FunctionVerifier):
    """An asynchronous reward function; TRL awaits all of them concurrently."""

    async def __call__(self, prompts: Sequence, completions: Sequence, **columns: Any) -> list[Score]:  # pyright: ignore
        batch, own = self._own(prompts, completions, columns)
        scores: list[Score] = []
        if batch.indices:
            try:
                scores = await self.function(**own)
            except VerifierError as error:
                scores = self._failed(batch, error)
        return self._report(batch, scores, columns)


def function_class(function: str | Callable[..., Any], isolated: bool | None = None) -> Callable[..., Verifier]:
    """The class of verifier for a function: a synchronous path is isolated unless `isolated=False`, a callable
    object is not."""
    loaded = load_function(function) if isinstance(function, str) else function
    if is_async(loaded):
        if isolated:
            raise ValueError(f"verifier {function!r} is asynchronous and cannot be isolated, set isolated: false")
        return AsyncFunctionVerifier
    if isinstance(function, str) and isolated is not False:
        return IsolatedFunction
    if isolated:
        raise ValueError(f"only a 'package.module:function' can be isolated, got the object {function!r}")
    return FunctionVerifier


def function_verifier(
    function: str | Callable[..., Any],
    domain: str | Sequence[str] | None = None,
    isolated: bool | None = None,
    **options: Any,
) -> Verifier:
    """The verifier for a function, of the class `function_class` gives."""
    return function_class(function, isolated)(function, domain, **options)
