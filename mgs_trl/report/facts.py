"""One run's facts, ready for the page: what it was, what its charts show, what can be said in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import yaml

from mgs_trl.records.redact import redact, redact_launch
from mgs_trl.report.charts import Chart, conflict_charts, domain_charts, logged_pairs, surgery_charts
from mgs_trl.report.compare import Score, heldout, setting
from mgs_trl.report.conflicts import WHOLE, Conflicts
from mgs_trl.report.cost import Cost, cost_of
from mgs_trl.report.read import RunFiles
from mgs_trl.report.verdicts import Verdict, conflict_sentences, verdicts


@dataclass(frozen=True)
class WeightRow:
    """Weights of one kind of module, or of the whole model: per domain mean, standard deviation, share of the norm."""

    name: str
    mean: list[float]
    spread: list[float]
    share: list[float]


@dataclass
class RunFacts:
    """Everything the template shows of one run."""

    files: RunFiles
    conflicts: Conflicts | None
    domains: list[str]
    status: str
    chips: list[str]
    charts: dict[str, list[Chart]]
    scores: dict[str, Score]
    notes: list[str]
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    conflict_sentences: list[str] = field(default_factory=list)
    weight_rows: list[WeightRow] = field(default_factory=list)
    weight_sentences: list[str] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    recipe: str = ""
    launches: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def downsampled(self) -> list[str]:
        """What was averaged to be shown, in sentences."""
        charts = [chart for group in self.charts.values() for chart in group if chart.points > chart.shown]
        said = []
        if charts:
            points = max(chart.points for chart in charts)
            shown = max(chart.shown for chart in charts)
            said.append(
                f"Charts: up to {points:,} points are shown as {shown:,} means, with the range from lowest to highest."
            )
        if self.conflicts is not None and len(self.conflicts.columns) < len(self.conflicts.steps):
            said.append(
                f"Heat map: {len(self.conflicts.steps):,} logged steps in {len(self.conflicts.columns)} columns, "
                "each the mean cosine of its steps. Means, errors and weights are taken from all of them."
            )
        return said


def run_facts(run: RunFiles, conflicts: Conflicts | None) -> RunFacts:
    """Facts of a run from what it left."""
    domains = _domains(run, conflicts)
    charts, missing = domain_charts(run, domains)
    notes = [*run.notes, *missing, *(conflicts.notes if conflicts else [])]
    if not domains:
        notes.append("No metric is named by domain: the charts show all rows together.")
    elif len(domains) == 1:
        notes.append(f"There is only one domain, {domains[0]}: nothing can conflict.")
    scores = heldout(run)
    notes += _score_notes(scores, domains)
    groups = {
        "training": charts,
        "conflict": conflict_charts(run, conflicts),
        "surgery": surgery_charts(run, conflicts, domains),
    }
    status = _status(run, conflicts)
    facts = RunFacts(run, conflicts, domains, status, _chips(run, domains), groups, scores, notes, cost=cost_of(run))
    if conflicts is not None:
        facts.weight_rows = weight_rows(conflicts)
        facts.weight_sentences = weight_sentences(
            conflicts, setting(run, "balance"), setting(run, "domain_weights"), setting(run, "surgery")
        )
        if conflicts.pairs:
            facts.verdicts = verdicts(conflicts)
            facts.conflict_sentences = conflict_sentences(conflicts, facts.verdicts)
    if run.recipe:
        facts.recipe = yaml.safe_dump(redact(run.recipe), sort_keys=False, allow_unicode=True)
    facts.launches = [redact_launch(launch) for launch in run.launches]
    return facts


def weight_rows(conflicts: Conflicts) -> list[WeightRow]:
    """Weights of the whole model, then of each kind."""
    kinds = conflicts.kind_names
    membership = np.array(
        [[1.0] * len(conflicts.kinds), *[[float(k == kind) for k in conflicts.kinds] for kind in kinds]]
    )
    mean, spread, share = conflicts.weights.by_group(membership)
    names = [WHOLE, *kinds]
    return [WeightRow(name, *(a[i].tolist() for a in (mean, spread, share))) for i, name in enumerate(names)]


def weight_sentences(conflicts: Conflicts, balance: Any = None, given: Any = None, surgery: Any = None) -> list[str]:
    """How much of what surgery did a constant weighting of the domains would have done.

    Args:
        balance, given, surgery: `balance`, `domain_weights` and `surgery` of the run, if known.
    """
    weights = conflicts.weights
    balanced = isinstance(balance, str) and balance != "none"
    weighted = isinstance(given, Mapping) and any(value != 1 for value in given.values())
    factors = ", ".join(f"{name} {value:g}" for name, value in given.items()) if weighted else ""
    idle = surgery in ("none", "observe")
    if idle and factors and not balanced:
        return [f"There was no surgery: these are the weights that were set (domain_weights: {factors})."]
    if not weights.changed:
        return ["Every weight is 1: conflicts were measured and the update was left as the plain sum."]
    modules = len(conflicts.modules)
    constant = ", ".join(
        f"{name} {value:.3f}" for name, value in zip(conflicts.domains, weights.constant(), strict=True)
    )
    kinds = np.array([[float(k == kind) for k in conflicts.kinds] for kind in conflicts.kind_names])
    per_domain, per_kind = weights.explained(np.ones((1, modules))), weights.explained(kinds)
    per_module, update = weights.explained(np.eye(modules)), weights.explained_update()
    did = "balancing" if idle else "surgery"
    plain = ", ".join(f"{name} {_mean(conflicts.series[f'weight/{name}']):.3f}" for name in conflicts.domains)
    sentences = [
        f"The constant weighting nearest to what {did} did: {constant}. The mean over steps, each counted alike, is "
        f"{plain}; where it is far larger, steps with nearly no gradient of that domain were given large weights.",
        f"Weights departed from 1, the plain sum, by {weights.departure():.3g} (root mean square). Of that squared "
        f"departure, one constant per domain explains {per_domain:.0%}, one per domain and kind {per_kind:.0%}, one "
        f"per domain and module {per_module:.0%}; the remaining {1 - per_module:.0%} changed from step to step, "
        "as weights do that follow the noise of single batches, and as those would that follow passing conflicts.",
    ]
    if math.isfinite(update):
        sentences.append(
            "Of the change to the update itself (squared norm), the best constant weights per domain reproduce "
            f"{update:.0%}."
        )
    if factors:
        sentences.append(f"The weights include those that were set (domain_weights: {factors}), not {did} alone.")
    if idle:
        return [*sentences, f"There was no surgery: these are the weights of balancing norms (balance: {balance})."]
    if balanced:
        sentences.append(f"The weights include the balancing of norms (balance: {balance}), not surgery alone.")
    return [
        *sentences,
        "A run with these constant weights and no surgery is the control that tells reweighting from projection; this "
        "report alone cannot say that surgery helped.",
    ]


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _domains(run: RunFiles, conflicts: Conflicts | None) -> list[str]:
    found = set(conflicts.domains) if conflicts else set()
    for metric in run.metrics():
        parts = metric.removeprefix("eval_").split("/")
        if parts[0] == "domain" and len(parts) > 2:
            found.add("/".join(parts[1:-1]))
    found |= {name for pair in logged_pairs(run) for name in pair}
    declared = run.recipe.get("domains")
    return sorted(found | (set(map(str, declared)) if isinstance(declared, dict) else set()))


def _score_notes(scores: dict[str, Score], domains: Sequence[str]) -> list[str]:
    if not scores:
        return ["There is no held-out evaluation by domain: rewards are those of training completions."]
    notes = []
    if never := [name for name in domains if name not in scores]:
        notes.append(f"Never evaluated on held-out prompts: {', '.join(never)}.")
    if once := [name for name, score in scores.items() if score.after is None]:
        notes.append(f"Evaluated only once, so there is no change to show: {', '.join(once)}.")
    late = {score.first_step for score in scores.values() if score.first_step > 0}
    if late:
        notes.append(f"The first evaluation was at step {min(late)}, not before training.")
    return notes


def _status(run: RunFiles, conflicts: Conflicts | None) -> str:
    if run.strategy == "merge":
        return "merged from other policies: there was no training"
    last = max(run.last_step, conflicts.steps[-1] if conflicts else 0)
    if stages := run.stages:
        done, planned = len(stages), max(len(stages), run.stages_planned)
        starts = "; ".join(f"{name} begins after step {before:,}" for name, before in stages)
        return f"{done} of {planned} stages, {last:,} steps: {starts}"
    planned = f" of {run.max_steps:,}" if run.max_steps else ""
    if run.finished and run.max_steps and last < run.max_steps:
        return f"stopped early, after step {last:,}{planned}"
    if run.finished:
        return f"finished at step {last:,}{planned}"
    return f"{last:,}{planned} steps; the end of training was not logged (interrupted, crashed, or still running)"


def _chips(run: RunFiles, domains: Sequence[str]) -> list[str]:
    chips = []
    if run.strategy:
        chips.append(f"strategy {run.strategy}")
    for name in ("surgery", "granularity", "balance", "gramian_ema", "seed"):
        value = setting(run, name)
        if value is not None:
            chips.append(f"{name} {value}")
    model = run.recipe.get("model")
    name = model.get("name_or_path") if isinstance(model, dict) else model
    if name:
        chips.append(f"model {'/'.join(str(name).rstrip('/').split('/')[-2:])}")
    chips.append(f"{len(domains)} domains" if len(domains) != 1 else "1 domain")
    return chips
