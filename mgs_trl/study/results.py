"""What the finished runs of a study scored, and the comparisons that follow from it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from mgs_trl.recipe import StudySpec
from mgs_trl.study.plan import BASE, MEAN, RESULT, Run
from mgs_trl.study.statistics import Difference, Mean, mean, paired_difference


@dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
        scores: mean held-out reward by domain, and the plain mean of all as `mean`.
        seconds: what training and the last evaluation took.
        entropy: of the policy while it was trained, nats per token, by domain: means of the first, middle and last
            third of the steps that were logged.
    """

    regime: str
    strategy: str
    seed: int
    checkpoint: int
    settings: str
    scores: dict[str, float]
    seconds: dict[str, float]
    entropy: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A strategy in a regime and a domain: its score, and how it differs from another strategy on the same seeds."""

    regime: str
    strategy: str
    domain: str
    score: Mean
    against: str
    difference: Difference


@dataclass(frozen=True)
class Stage:
    """What a sequence did to one of its domains, from scores paired by seed.

    Attributes:
        forgetting: score at the end of the sequence minus score right after the domain's own stage.
        rigidity: score right after the domain's own stage minus that of training on it first; both NaN where they
            are zero by definition (the last domain; the first).
    """

    regime: str
    order: str
    domain: str
    forgetting: Difference
    rigidity: Difference


def read_result(run: Run) -> Result:
    """The result of a finished run."""
    content: dict[str, Any] = json.loads((run.directory / RESULT).read_text())
    scores = {**content.pop("scores")}
    scores[MEAN] = fmean(scores.values())
    return Result(**content, scores=scores, entropy=_entropy(run.directory / "metrics.jsonl"))


def _entropy(path: Path) -> dict[str, list[float]]:
    """Means of thirds of a run, by domain, over the logs that have a value; empty without a log."""
    if not path.is_file():
        return {}
    series: dict[str, list[float]] = {}
    for line in path.read_text().splitlines():
        for key, value in json.loads(line).items():
            parts = key.split("/")
            if parts[0] == "domain" and parts[-1] == "entropy" and value is not None:  # None: TRL's for NaN
                series.setdefault("/".join(parts[1:-1]), []).append(value)
    cut = {name: [len(values) * i // 3 for i in range(4)] for name, values in series.items()}
    return {
        name: [fmean(values[low:high]) for low, high in zip(cut[name], cut[name][1:], strict=False) if high > low]
        for name, values in series.items()
    }


class Results:
    """All finished runs of a study.

    Args:
        found: their results.
        study: what was asked for.
    """

    def __init__(self, found: Iterable[Result], study: StudySpec):
        self.all = sorted(found, key=lambda result: (result.regime, result.strategy, result.seed))
        self.study = study
        self._scores: dict[tuple[str, str, str], dict[int, float]] = {}
        for result in self.all:
            for domain, score in result.scores.items():
                self._scores.setdefault((result.regime, result.strategy, domain), {})[result.seed] = score

    @property
    def domains(self) -> list[str]:
        """The domains that were evaluated, and last `mean`."""
        names = {domain for _, _, domain in self._scores} - {MEAN}
        return [*sorted(names), MEAN]

    def by_seed(self, regime: str, strategy: str, domain: str) -> dict[int, float]:
        """Scores of the seeds that have finished."""
        return self._scores.get((regime, strategy, domain), {})

    def strategies(self, regime: str) -> list[str]:
        """Those with a finished run in a regime, in the study's order."""
        return [name for name in self.study.strategies if self.by_seed(regime, name, MEAN)]

    def cells(self, regime: str) -> list[Cell]:
        """Every strategy and domain, against the baseline."""
        pairs = [(name, self.study.baseline) for name in self.strategies(regime)]
        return [self._cell(regime, *pair, domain) for pair in pairs for domain in self.domains]

    def contrasts(self, regime: str) -> list[Cell]:
        """The study's further pairs, where both have finished runs."""
        ran = self.strategies(regime)
        pairs = [pair for pair in self.study.contrasts if set(pair) <= set(ran)]
        return [self._cell(regime, first, second, domain) for first, second in pairs for domain in self.domains]

    def base(self) -> dict[str, Mean]:
        """Scores of the policies that training starts from, over checkpoints."""
        return {domain: mean(list(self.by_seed(BASE, BASE, domain).values())) for domain in self.domains}

    def stages(self, regime: str) -> list[Stage]:
        """Forgetting and rigidity of every sequence of the study that ran in a regime."""
        first = {next(iter(sequence)): next(iter(sequence.values())) for sequence in self.study.sequences}
        first = {**self._singles(), **first}
        found = []
        for sequence in self.study.sequences:
            last = list(sequence.values())[-1]
            if not self.by_seed(regime, last, MEAN):
                continue
            for domain, strategy in sequence.items():
                own = self.by_seed(regime, strategy, domain)
                end = self.by_seed(regime, last, domain) if strategy != last else {}
                alone = self.by_seed(regime, first[domain], domain) if first.get(domain, strategy) != strategy else {}
                forgetting, rigidity = paired_difference(end, own), paired_difference(own, alone)
                found.append(Stage(regime, " > ".join(sequence), domain, forgetting, rigidity))
        return found

    def _singles(self) -> dict[str, str]:
        """For each domain the strategy that trains it alone from the start, if the study calls it `single_DOMAIN`."""
        names = {domain: f"single_{domain}" for sequence in self.study.sequences for domain in sequence}
        return {domain: name for domain, name in names.items() if name in self.study.strategies}

    def seconds(self, regime: str, strategy: str) -> Mean:
        """Wall-clock of a run, training and evaluation."""
        chosen = [r for r in self.all if r.regime == regime and r.strategy == strategy]
        return mean([sum(result.seconds.values()) for result in chosen])

    def entropy(self, regime: str, strategy: str) -> dict[str, list[float]]:
        """Mean over seeds of each third of training, by domain."""
        chosen = [r.entropy for r in self.all if r.regime == regime and r.strategy == strategy]
        names = sorted({name for entropy in chosen for name in entropy})
        return {
            name: [fmean(values) for values in zip(*(e[name] for e in chosen if name in e), strict=False)]
            for name in names
        }

    def _cell(self, regime: str, strategy: str, against: str, domain: str) -> Cell:
        own, other = self.by_seed(regime, strategy, domain), self.by_seed(regime, against, domain)
        difference = paired_difference(own, {} if strategy == against else other)
        return Cell(regime, strategy, domain, mean(list(own.values())), against, difference)


def missing(runs: Sequence[Run], failed: Mapping[str, str]) -> list[tuple[str, str]]:
    """Runs without a result, and why."""
    return [(run.name, failed.get(run.name, "not run yet")) for run in runs if not run.finished]
