"""What separating the domains' gradients cost a run: time beside the rest of a step, and memory of the copies."""

from dataclasses import dataclass, field

from mgs_trl.report.compare import setting
from mgs_trl.report.read import RunFiles

MEMORY = "surgery/memory_gib/"


@dataclass(frozen=True)
class Cost:
    """Means over a run's logs, of its first process; None for what was not logged.

    Attributes:
        step: seconds of a whole step, rollouts included (`step_time`).
        training: seconds of its forward and backward passes and surgery (`seconds/training`).
        surgery: seconds of surgery, or of measuring, in that (`surgery/seconds`).
        memory: GiB of the copies of domain gradients, by where they are: `cpu`, `cuda`.
        measured: whether the run only observed.
        weighted: whether it had no surgery, only weights that were set.
    """

    step: float | None = None
    training: float | None = None
    surgery: float | None = None
    memory: dict[str, float] = field(default_factory=dict)
    measured: bool = False
    weighted: bool = False

    @property
    def share(self) -> float | None:
        """Of the step without its rollouts."""
        return self.surgery / self.training if self.surgery is not None and self.training else None

    @property
    def places(self) -> str:
        """Memory and where it is, in words; empty if not logged."""
        parts = [
            f"{_size(gib)} {'in host memory' if place == 'cpu' else f'on {place}'}"
            for place, gib in self.memory.items()
        ]
        return ", ".join(parts)

    @property
    def sentences(self) -> list[str]:
        """What can be said; nothing of a run that kept no domain gradient."""
        if self.surgery is None:
            return []
        what = "Measuring conflicts" if self.measured else "Weighting the domains" if self.weighted else "Surgery"
        said = f"{what} (keeping gradients, Gramians, weights, combination) took {duration(self.surgery)} per step"
        if self.training is not None:
            said += f", {self.share:.1%} of the {duration(self.training)} that a step takes without its rollouts"
        result = [said + ". What it takes to process each domain's rows by themselves is not in this figure."]
        if self.memory:
            result.append(f"Copies of domain gradients take {self.places}; every process holds about as much.")
        if self.measured:
            result.append("The update is unchanged: it is the one that the run would make without measuring.")
        return result


def cost_of(run: RunFiles) -> Cost:
    """Cost of a run, from what it logged."""
    memory = {name.removeprefix(MEMORY): _mean(run, name) for name in run.metrics() if name.startswith(MEMORY)}
    return Cost(
        _mean(run, "step_time"),
        _mean(run, "seconds/training"),
        _mean(run, "surgery/seconds"),
        {place: gib for place, gib in memory.items() if gib is not None},
        setting(run, "surgery") == "observe",
        setting(run, "surgery") == "none",
    )


def _mean(run: RunFiles, metric: str) -> float | None:
    _, values = run.series(metric)
    return sum(values) / len(values) if values else None


def duration(seconds: float | None) -> str:
    """In s or ms, three digits; a dash for what is missing."""
    if seconds is None:
        return "–"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _size(gib: float) -> str:
    return f"{gib:.3g} GiB" if gib >= 1 else f"{gib * 1024:.3g} MiB"
