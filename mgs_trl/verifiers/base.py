"""The protocol of a verifier, and its adapter to TRL's reward functions.

A verifier is called as `f(prompts=, completions=, **columns)` and returns a score or None per row. Ours
score the rows of their own domain that carry the columns they need, and nothing else; every other row is
None, which TRL leaves out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from mgs_trl.verifiers.completions import completion_text
from mgs_trl.verifiers.errors import sample_error
from mgs_trl.verifiers.guard import is_finite
from mgs_trl.verifiers.pool import Arguments, Outcome, shared_pool
from mgs_trl.verifiers.thinking import STRIP_MODES, Strip, strip_thinking

logger = logging.getLogger(__name__)

Score = float | None
OnError = Literal["raise", "none"]


class Verifier:
    """Scores the rows of `domain`; subclasses give `_score(rows)`.

    `domain`: a name, several names, or None for every row with the needed columns. `label`: the name in
    logs and errors. `strip`: how thinking is cut off (thinking.py). `on_error`: "raise" stops the run
    naming the sample, "none" scores it None, logs and counts it. `clip`: (low, high) bounds of a score.
    `domain_column`: the column that names a row's domain.
    """

    label = "verifier"
    default_domains: tuple[str, ...] = ()
    column_choices: tuple[tuple[str, ...], ...] = ()  # each a set of columns that is enough to score a row
    collective = False  # every rank takes part in every call, also without rows of its own

    def __init__(
        self,
        domain: str | Sequence[str] | None = None,
        *,
        name: str | None = None,
        strip: Strip = "auto",
        on_error: OnError = "raise",
        clip: tuple[float, float] | None = None,
        domain_column: str = "domain",
    ) -> None:
        if strip not in STRIP_MODES:
            raise ValueError(f"strip must be one of {', '.join(STRIP_MODES)}, got {strip!r}")
        if on_error not in ("raise", "none"):
            raise ValueError(f"on_error must be 'raise' or 'none', got {on_error!r}")
        if clip is not None and (len(clip) != 2 or not clip[0] < clip[1]):
            raise ValueError(f"clip must be two bounds, low < high, got {clip!r}")
        self.label = name or self.label
        named = (domain,) if isinstance(domain, str) else domain
        self.domains = self.default_domains if named is None else tuple(named)
        self.strip: Strip = strip
        self.on_error, self.clip, self.domain_column = on_error, clip, domain_column
        # TRL logs rewards under this name.
        self.__name__ = f"{self.domains[0]}/{self.label}" if self.domains else self.label

    @property
    def required_columns(self) -> tuple[str, ...]:
        """The dataset columns this verifier reads, in the first of the forms it accepts."""
        return self.column_choices[0] if self.column_choices else ()

    def check_columns(self, available: Iterable[str]) -> None:
        """Raise ValueError when a dataset with the columns `available` cannot be scored."""
        names = set(available)
        if self.column_choices and not any(names.issuperset(choice) for choice in self.column_choices):
            forms = " or ".join(" + ".join(choice) for choice in self.column_choices)
            raise ValueError(f"verifier {self.__name__!r} needs the columns {forms}, the dataset has {sorted(names)}")

    def validate_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Check the dataset rows of this verifier's domain; raises ValueError naming the first bad row by
        its position."""
        for position, row in enumerate(rows):
            if self.owns(row.get(self.domain_column)):
                if not self.scorable(row):
                    forms = " or ".join(" + ".join(choice) for choice in self.column_choices)
                    raise ValueError(f"row {position}: verifier {self.__name__!r} needs a value for {forms}")
                try:
                    self.validate_row(row)
                except ValueError as error:
                    raise ValueError(f"row {position}: {error}") from None

    def validate_row(self, row: Mapping[str, Any]) -> None:
        """Raise ValueError when the verifier columns of one own row cannot be used."""

    def preflight(self) -> None:
        """Try, before training, what can fail: loading, connecting. Raises with the reason."""

    def owns(self, domain: Any) -> bool:
        """Whether rows of `domain` are this verifier's; a row without a domain is."""
        return domain is None or not self.domains or domain in self.domains

    def scorable(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has a value in every column of one accepted form."""
        return not self.column_choices or any(
            all(row.get(column) is not None for column in choice) for choice in self.column_choices
        )

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[Score]:
        """Scores in the order of `completions`; None for rows that are not this verifier's.

        `columns`: one list per dataset column, and what TRL adds: `log_metric(name, value)` receives the
        counts of trouble, `log_extra(column, values)` details per row.
        """
        batch = Batch(self, prompts, completions, columns)
        scores = self._score(batch) if batch.indices or self.collective else []
        result: list[Score] = [None] * len(completions)
        for index, score in zip(batch.indices, scores, strict=True):
            result[index] = self._checked(batch, index, score)
        batch.report(columns)
        return result

    def _score(self, batch: Batch) -> list[Score]:
        """Scores of `batch.indices`, in that order."""
        raise NotImplementedError

    def _checked(self, batch: Batch, index: int, score: Score) -> Score:
        if score is None:
            return None
        if not is_finite(score):
            return batch.error(index, f"returned {score!r}, which is no finite number", "non_finite")
        return float(score) if self.clip is None else min(max(float(score), self.clip[0]), self.clip[1])


class Batch:
    """One call of a verifier: its own rows, and what is counted and logged while they are scored."""

    def __init__(
        self, verifier: Verifier, prompts: Sequence, completions: Sequence, columns: Mapping[str, Any]
    ) -> None:
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts for {len(completions)} completions")
        self.verifier, self.prompts, self.completions = verifier, prompts, completions
        self.columns = {
            name: values for name, values in columns.items() if isinstance(values, list) and len(values) == len(prompts)
        }
        self.indices = [index for index in range(len(prompts)) if self._own(index)]
        self.counts = {"timeouts": 0, "crashes": 0, "errors": 0, "non_finite": 0}
        self.extras: dict[str, list] = {}

    def report(self, columns: Mapping[str, Any]) -> None:
        """Hand counts and details to TRL's `log_metric` and `log_extra`, where `columns` holds them."""
        log_metric: Callable[[str, float], None] | None = columns.get("log_metric")
        log_extra: Callable[[str, list], None] | None = columns.get("log_extra")
        if log_metric is not None:
            for kind, count in self.counts.items():
                log_metric(f"verifier/{self.verifier.__name__}/{kind}", float(count))
        if log_extra is not None:
            for column, values in self.extras.items():
                log_extra(f"{self.verifier.__name__}/{column}", values)

    def _own(self, index: int) -> bool:
        row = self.row(index)
        return self.verifier.owns(row.get(self.verifier.domain_column)) and self.verifier.scorable(row)

    def row(self, index: int) -> dict[str, Any]:
        """The dataset columns of one row."""
        return {name: values[index] for name, values in self.columns.items()}

    def domain(self, index: int) -> Any:
        """The row's domain, or the verifier's where no column names it."""
        named = self.columns.get(self.verifier.domain_column)
        domains = self.verifier.domains
        return named[index] if named is not None else domains[0] if domains else None

    def text(self, index: int) -> str:
        """The answer to score: completion text without thinking, never the prompt."""
        return strip_thinking(completion_text(self.completions[index]), self.verifier.strip)

    def error(self, index: int, problem: str, kind: str = "errors") -> None:
        """Apply `on_error` to one sample: raise, or log and count it and score it None."""
        error = sample_error(
            self.verifier.__name__,
            self.domain(index),
            index,
            problem,
            self.prompts[index],
            self.completions[index],
        )
        if self.verifier.on_error == "raise":
            raise error
        self.counts[kind] += 1
        logger.warning("%s; scored None", error)

    def overrun(self, index: int, outcome: Outcome, score: Score) -> Score:
        """A sample whose worker was killed or died: logged, counted, scored `score`."""
        kind = "timeouts" if outcome.kind == "timeout" else "crashes"
        self.counts[kind] += 1
        problem = f"{outcome.kind} ({outcome.error})"
        error = sample_error(
            self.verifier.__name__,
            self.domain(index),
            index,
            problem,
            self.prompts[index],
            self.completions[index],
        )
        logger.warning("%s; scored %s", error, score)
        return score


class IsolatedVerifier(Verifier):
    """A verifier whose samples are scored in the pool of worker processes, each within `time_limit` seconds.

    Subclasses give `target` ("package.module:function", called in the worker) and `_arguments(batch,
    index)`. A sample over the limit, or one that kills its worker, scores `on_timeout` (default None); over
    `memory_mb` it counts as a crash.
    """

    target: str
    memory_mb: int | None = 4096  # address space a worker may add while it scores this verifier's samples

    def __init__(
        self,
        domain: str | Sequence[str] | None = None,
        *,
        time_limit: float = 10.0,
        on_timeout: Score = None,
        **options: Any,
    ) -> None:
        super().__init__(domain, **options)
        if not time_limit > 0:
            raise ValueError(f"time_limit must be a positive number of seconds, got {time_limit!r}")
        if on_timeout is not None and not math.isfinite(on_timeout):
            raise ValueError(f"on_timeout must be None or a finite score, got {on_timeout!r}")
        self.time_limit, self.on_timeout = float(time_limit), on_timeout

    def _arguments(self, batch: Batch, index: int) -> Arguments:
        raise NotImplementedError

    def _finish(self, batch: Batch, values: Mapping[int, Any]) -> dict[int, Score]:
        """Scores from the values the target returned, by row."""
        return dict(values)

    def _score(self, batch: Batch) -> list[Score]:
        tasks = [self._arguments(batch, index) for index in batch.indices]
        outcomes = shared_pool().run(self.target, tasks, self.time_limit, self.memory_mb)
        values: dict[int, Any] = {}
        scores: dict[int, Score] = {}
        for index, outcome in zip(batch.indices, outcomes, strict=True):
            if outcome.kind == "done":
                values[index] = outcome.value
            elif outcome.kind == "failed" and not outcome.error.startswith("MemoryError"):
                scores[index] = batch.error(index, f"raised {outcome.error}\n{outcome.trace}".rstrip())
            else:
                scores[index] = batch.overrun(index, outcome, self.on_timeout)
        scores.update(self._finish(batch, values))
        return [scores[index] for index in batch.indices]
