"""Exponentially smoothed Gramians: most of one batch's conflict and norm imbalance is noise."""

from typing import Any

import torch
from torch import Tensor


class GramianSmoother:
    """Keeps `S_k = beta S_(k-1) + (1 - beta) G_k`, corrected for the start so that early steps are plain means.

    Args:
        beta: smoothing, in [0, 1); 0 gives each step's own Gramian.
    """

    def __init__(self, beta: float):
        self.beta = beta
        self.total: Tensor | None = None
        self.mass: Tensor | None = None

    def update(self, gramian: Tensor, valid: Tensor | None = None) -> Tensor:
        """The smoothed Gramian after this step.

        Args:
            gramian: float64 `[M, T, T]`.
            valid: bool `[T]`: domains whose gradient was finite; entries of the others keep their history.
        """
        if self.beta == 0.0:
            return gramian
        if self.total is None or self.mass is None:
            self.total, self.mass = torch.zeros_like(gramian), torch.zeros_like(gramian)
        seen = torch.ones_like(gramian, dtype=torch.bool)
        if valid is not None:
            seen &= valid[None, :, None] & valid[None, None, :]
        # Entries that have been seen equally often share their mass, so the smoothed Gramian stays a weighted mean.
        self.total = torch.where(seen, self.beta * self.total + (1 - self.beta) * gramian, self.total)
        self.mass = torch.where(seen, self.beta * self.mass + (1 - self.beta), self.mass)
        return torch.where(self.mass > 0, self.total / torch.where(self.mass > 0, self.mass, 1.0), gramian)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "mass": self.mass}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a history, whatever beta it was made with: total and mass remain those of a weighted mean."""
        self.total, self.mass = state["total"], state["mass"]
