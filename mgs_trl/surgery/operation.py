"""One surgery: from a step's Gramians to weights and a report, the same for the trainer and for any other loop."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mgs_trl.surgery.methods import SurgeryRule
from mgs_trl.surgery.modules import Module
from mgs_trl.surgery.report import ConflictReport
from mgs_trl.surgery.smoothing import GramianSmoother


class Surgeon:
    """Decides the weights of every step. Holds no gradients.

    A domain whose gradient is not finite anywhere is left out of that step in every module (its weights are zero) and
    named in the report; the other domains go on. A rule that changes nothing (`observe`) names it only. Every rank sees
    the same Gramian, so every rank decides alike.

    Args:
        domains: names, sorted.
        modules: from `partition`.
        rule: what decides.
        smoothing: beta of the Gramian's exponential smoothing.
    """

    def __init__(self, domains: Sequence[str], modules: Sequence[Module], rule: SurgeryRule, smoothing: float = 0.0):
        self.domains = tuple(domains)
        self.modules = tuple(module.name for module in modules)
        self.kinds = tuple(module.kind for module in modules)
        self.rule = rule
        self.smoother = GramianSmoother(smoothing)

    def decide(self, gramian: Tensor, step: int) -> ConflictReport:
        """Weights for `gramian` (`[M, T, T]`, summed over shards) at optimizer step `step`."""
        gramian = gramian.to("cpu", torch.float64)
        finite = gramian.diagonal(dim1=1, dim2=2).isfinite().all(0)
        # An entry of a finite pair can be non-finite only by overflow, which float64 of float32 values excludes.
        gramian = torch.where(finite[None, :, None] & finite[None, None, :], gramian, 0.0)
        smoothed = self.smoother.update(gramian, finite)
        decisive = torch.where(finite[None, :, None] & finite[None, None, :], smoothed, 0.0)
        weights = self.rule.weights(decisive, self.kinds, step)
        if self.rule.acts:
            weights = torch.where(finite, weights, 0.0)
        dropped = tuple(name for name, ok in zip(self.domains, finite.tolist(), strict=True) if not ok)
        return ConflictReport(step, self.domains, self.modules, self.kinds, gramian, weights, dropped)

    def state_dict(self) -> dict[str, Any]:
        """The smoothed Gramians, and of which modules they are."""
        return {"modules": list(self.modules), **self.smoother.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the smoothed Gramians of a checkpoint; without smoothing, now or then, there are none.

        Args:
            state: from `state_dict`.

        Raises:
            ValueError: Gramians of other modules or of another number of domains.
        """
        total = state["total"]
        if total is None or self.smoother.beta == 0.0:
            return
        shape = (len(self.modules), len(self.domains), len(self.domains))
        names = tuple(state.get("modules", self.modules))  # an earlier version saved none
        if names != self.modules or tuple(total.shape) != shape:
            saved, here = f"{total.shape[0]} modules ({names[0]}, ...)", f"{shape[0]} modules ({self.modules[0]}, ...)"
            raise ValueError(
                f"the checkpoint has smoothed Gramians of {saved} and {total.shape[1]} domains, but this run has "
                f"{here} and {shape[1]} domains; resume with the granularity and the trained parameters of the "
                "checkpoint, or set gramian_ema to 0."
            )
        self.smoother.load_state_dict(dict(state))
