"""Conflict or noise: for every pair of domains and every module, in numbers and in words."""

import math
from dataclasses import dataclass

import numpy as np

from mgs_trl.report.conflicts import Conflicts
from mgs_trl.report.statistics import chance_beyond

ERRORS = 2.0  # standard errors beyond which a mean is told from zero
FEWEST_STEPS = 5  # below which no verdict is given
NAMED = 6  # modules named in a sentence


@dataclass(frozen=True)
class Verdict:
    """One pair of domains in one module, one kind, or the whole model."""

    row: str
    pair: str
    steps: int
    inner: float
    inner_error: float
    cosine: float
    cosine_error: float
    negative: float
    correlation: float

    @property
    def errors(self) -> float:
        """Mean inner product in standard errors; NaN without an error."""
        return self.inner / self.inner_error if self.inner_error > 0 else math.nan

    @property
    def word(self) -> str:
        if self.steps < FEWEST_STEPS or math.isnan(self.errors):
            return "too few steps"
        if self.errors < -ERRORS:
            return "conflict"
        return "agreement" if self.errors > ERRORS else "not told from noise"

    @property
    def level(self) -> int:
        """-2, -1, 0, 1, 2: beyond 4 or 2 standard errors below or above zero."""
        if self.word not in ("conflict", "agreement"):
            return 0
        return int(math.copysign(2 if abs(self.errors) > 2 * ERRORS else 1, self.errors))


def verdicts(conflicts: Conflicts) -> dict[str, list[Verdict]]:
    """For every row (modules, kinds, whole model) the verdicts of all pairs, in the order of the pairs."""
    inner, inner_error = conflicts.inner.mean(), conflicts.inner.standard_error()
    cosine, cosine_error = conflicts.cosine.mean(), conflicts.cosine.standard_error()
    count, correlation = conflicts.inner.count, conflicts.inner.correlation()
    with np.errstate(invalid="ignore", divide="ignore"):
        negative = conflicts.negative / count
    return {
        _row_key(conflicts, r): [
            Verdict(
                row, conflicts.pair_name(p), int(count[r, p]), float(inner[r, p]), float(inner_error[r, p]),
                float(cosine[r, p]), float(cosine_error[r, p]), float(negative[r, p]), float(correlation[r, p]),
            )
            for p in range(len(conflicts.pairs))
        ]
        for r, row in enumerate(conflicts.rows)
    }  # fmt: skip


def _row_key(conflicts: Conflicts, row: int) -> str:
    """Modules under their name, kinds as `kind:NAME`: a module can be called like a kind."""
    modules, kinds = len(conflicts.modules), len(conflicts.kind_names)
    name = conflicts.rows[row]
    return f"kind:{name}" if modules <= row < modules + kinds else name


def conflict_sentences(conflicts: Conflicts, table: dict[str, list[Verdict]]) -> list[str]:
    """What the run can and cannot say about conflicts."""
    whole = table[conflicts.rows[-1]]
    pairs = [(conflicts.domains[a], conflicts.domains[b]) for a, b in conflicts.pairs]  # a name may hold a `~` itself
    sentences = [_whole_sentence(verdict, *pair) for verdict, pair in zip(whole, pairs, strict=True)]
    tested = [v for name in conflicts.modules for v in table[name] if v.word != "too few steps"]
    if not tested:
        return [*sentences, f"Fewer than {FEWEST_STEPS} logged steps: nothing can be told from noise per module."]
    found = [v for v in tested if v.word == "conflict"]
    chance = sum(chance_beyond(ERRORS, v.steps) for v in tested)
    sentences.append(
        f"Of {len(tested)} module-and-pair means, {len(found) or 'none'} lie more than {ERRORS:g} standard errors "
        f"below zero{_names(found)}. If no pair conflicted anywhere, about {chance:.1f} would by chance: "
        f"{_against_chance(len(found), chance)}"
    )
    agreeing = sum(v.word == "agreement" for v in tested)
    sentences.append(
        f"{agreeing or 'None'} of them lie more than {ERRORS:g} standard errors above zero, where domains agree."
    )
    negative = sum(v.negative * v.steps for v in tested)
    established = sum(v.negative * v.steps for v in found)
    if negative:
        sentences.append(
            f"Of the {negative:,.0f} negative inner products of single steps, which are what surgery reacts to, "
            f"{1 - established / negative:.0%} were in modules and pairs whose mean over the run shows no conflict. "
            "Acting on those is acting on noise, unless the conflict came and went."
        )
    return sentences


def _whole_sentence(verdict: Verdict, a: str, b: str) -> str:
    if verdict.steps == 0:
        return f"{a} and {b}: no logged step had a gradient of both."
    shown = (
        f"cosine {_signed(verdict.cosine)} ± {verdict.cosine_error:.2g}, negative in {verdict.negative:.0%} of "
        f"{verdict.steps} steps"
    )
    if verdict.word == "too few steps":
        return f"{a} and {b}: {shown}; too few steps for a verdict."
    distance = f"{abs(verdict.errors):.1f} standard errors {'below' if verdict.errors < 0 else 'above'} zero"
    meaning = {
        "conflict": "they conflict over the whole model",
        "agreement": "they help each other over the whole model",
        "not told from noise": "over the whole model no conflict is told from noise",
    }[verdict.word]
    return f"{a} and {b}: {meaning}: the mean inner product is {distance} ({shown})."


def _names(found: list[Verdict]) -> str:
    if not found:
        return ""
    worst = sorted(found, key=lambda v: v.errors)
    names = "; ".join(f"{v.row} {v.pair} {_signed(v.errors, 1)}" for v in worst[:NAMED])
    return f" ({names}" + (f"; {len(worst) - NAMED} more below)" if len(worst) > NAMED else ")")


def _against_chance(found: int, chance: float) -> str:
    if found <= chance + 2 * math.sqrt(chance):
        return "no more than chance explains."
    return "more than chance alone explains (modules share their batches, so chance ones come in clusters, too)."


def _signed(value: float, digits: int = 3) -> str:
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"
