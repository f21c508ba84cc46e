"""From Gramians to the weights of the domain gradients: balance, then a rule such as PCGrad."""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mgs_trl.surgery.choices import check_choice, check_top_modules
from mgs_trl.surgery.modules import KINDS
from mgs_trl.surgery.pcgrad import pcgrad_weights, projection_order, step_generator

BALANCES = ("none", "domain", "module")
_TORCHJD = "torchjd.aggregation"

# Rules of torchjd that are functions of the Gramian alone, with the arguments that it asks for.
_TORCHJD_RULES = {
    "aligned_mtl": ("AlignedMTLWeighting", {}),
    "cagrad": ("CAGradWeighting", {"c": 0.5}),
    "dualproj": ("DualProjWeighting", {}),
    "imtl_g": ("IMTLGWeighting", {}),
    "mgda": ("MGDAWeighting", {}),
    "upgrad": ("UPGradWeighting", {}),
}


def method_names() -> list[str]:
    """Every name that `surgery=` and `resolve_conflicts(method=)` accept."""
    return ["pcgrad", "none", "observe", "rescaled", *sorted(_TORCHJD_RULES)]


def check_method(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is one of `method_names()` and what it needs is installed."""
    check_choice(name, value, method_names())
    if value not in _TORCHJD_RULES:
        return
    if importlib.util.find_spec("torchjd") is None:
        raise ValueError(
            f"{name} is {value!r}, which needs torchjd, but that is not installed: pip install 'mgs_trl[rules]'."
        )
    # Not when it is first needed: once DeepSpeed has loaded a model for ZeRO-3, no generic module can be defined.
    importlib.import_module(_TORCHJD)


@dataclass(frozen=True)
class SurgeryRule:
    """What decides the weights of one optimizer step.

    Attributes:
        method: a name from `method_names()`.
        balance: `none`, `domain` (equal norms over the model) or `module` (equal norms within each module).
        exclude: kinds whose modules get the plain sum (after balancing).
        top_modules: of the others, surgery only on those of largest gradient norm: how many (int), or which share
            (float).
        seed: of the projection order.
        factors: of the domain gradients, before all else; empty for ones.

    Raises:
        ValueError: a field that is none of the values it may have.
    """

    method: str = "pcgrad"
    balance: str = "none"
    exclude: Sequence[str] = field(default_factory=tuple)
    top_modules: float | int | None = None
    seed: int = 0
    factors: Sequence[float] = ()

    def __post_init__(self) -> None:
        check_method("method", self.method)
        check_choice("balance", self.balance, BALANCES)
        for kind in self.exclude:
            check_choice("exclude", kind, KINDS)
        check_top_modules("top_modules", self.top_modules)

    @property
    def acts(self) -> bool:
        """Whether any weight can differ from one."""
        return self.method not in ("none", "observe") or self.balance != "none" or any(f != 1 for f in self.factors)

    def weights(self, gramian: Tensor, kinds: Sequence[str], step: int) -> Tensor:
        """Weights of the domain gradients in each module.

        Args:
            gramian: `[modules, domains, domains]`, summed over shards; finite.
            kinds: kind of each module.
            step: optimizer step, which with the seed fixes the projection order.

        Returns:
            float64 `[modules, domains]` on the CPU.
        """
        gramian = gramian.to("cpu", torch.float64)
        if not self.acts:
            return torch.ones(gramian.shape[:2], dtype=torch.float64)
        factors = torch.tensor(self.factors or [1.0] * gramian.shape[1], dtype=torch.float64)
        gramian = gramian * factors[:, None] * factors[None, :]
        scales = balance_scales(gramian, self.balance)
        balanced = gramian * scales[:, :, None] * scales[:, None, :]
        weights = self._rule_weights(balanced, step)
        operated = self.operated_modules(gramian, kinds)
        return torch.where(operated[:, None], weights, 1.0) * scales * factors

    def operated_modules(self, gramian: Tensor, kinds: Sequence[str]) -> Tensor:
        """bool `[modules]`: where surgery acts. The norm that ranks modules is that of all domain gradients together,
        `sqrt(sum_d |g_d|^2)`, so that conflict does not hide a module."""
        operated = torch.tensor([kind not in self.exclude for kind in kinds])
        if self.top_modules is not None:
            count = self.top_modules
            if isinstance(count, float):
                count = max(1, round(count * int(operated.sum())))
            norms = gramian.diagonal(dim1=1, dim2=2).sum(-1).where(operated, -1.0)
            best = torch.zeros(len(kinds), dtype=torch.bool)
            best[norms.argsort(descending=True, stable=True)[:count]] = True
            operated &= best
        return operated

    def _rule_weights(self, gramian: Tensor, step: int) -> Tensor:
        modules, domains, _ = gramian.shape
        if self.method in ("none", "observe") or domains == 1:
            return torch.ones(modules, domains, dtype=torch.float64)
        if self.method in ("pcgrad", "rescaled"):
            order = projection_order(modules, domains, step_generator(self.seed, step))
            weights = pcgrad_weights(gramian, order)
            return weights if self.method == "pcgrad" else _rescaled(gramian, weights)
        return _torchjd_weights(self.method, gramian)


def _rescaled(gramian: Tensor, weights: Tensor) -> Tensor:
    """The plain sum, in each module as long as `sum_d weights[d] g_d` is there: a control for surgery's norm alone."""
    norm = torch.einsum("md,mde,me->m", weights, gramian, weights).clamp(min=0).sqrt()
    plain = gramian.sum((1, 2)).clamp(min=0).sqrt()
    ratio = torch.where(plain > 0, norm / torch.where(plain > 0, plain, 1.0), 1.0)
    return ratio[:, None].expand_as(weights)


def _torchjd_weights(method: str, gramian: Tensor) -> Tensor:
    """A rule of torchjd among the domains that have a gradient; the others keep weight one.

    torchjd weighs a mean of gradients (1 / T each where nothing conflicts) and ours is a sum, hence times T. It takes
    Gramians of small trace for zero, hence a trace of one. A zero gradient among the others would cancel them (mgda,
    cagrad) or count in T.
    """
    aggregation = importlib.import_module(_TORCHJD)
    name, arguments = _TORCHJD_RULES[method]
    weighting = getattr(aggregation, name)(**arguments)
    weights = torch.ones(gramian.shape[:2], dtype=gramian.dtype)
    for matrix, out in zip(gramian, weights, strict=True):
        present = matrix.diagonal() > 0
        among = matrix[present][:, present]
        if len(among) > 1:
            out[present] = weighting(among / among.trace()) * len(among)
    return weights


def balance_scales(gramian: Tensor, balance: str) -> Tensor:
    """Factors that bring the domain gradients to equal norm and keep the size of their sum.

    Norms come from the Gramian's diagonal. The common norm is such that the balanced sum is as long as the plain sum,
    but never more than the largest domain norm, so that two nearly opposite domains cannot blow the update up. A
    domain with a zero gradient keeps its (zero) gradient.

    Args:
        gramian: float64 `[modules, domains, domains]`.
        balance: `none`, `domain` or `module`.

    Returns:
        float64 `[modules, domains]`.
    """
    if balance == "none":
        return torch.ones(gramian.shape[:2], dtype=gramian.dtype)
    if balance == "domain":
        return balance_scales(gramian.sum(0, keepdim=True), "module").expand(gramian.shape[:2])
    norms = gramian.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    inverse = torch.where(norms > 0, 1.0 / torch.where(norms > 0, norms, 1.0), 0.0)
    unit_sum = torch.einsum("md,mde,me->m", inverse, gramian, inverse).clamp(min=0).sqrt()
    plain_sum = gramian.sum((1, 2)).clamp(min=0).sqrt()
    largest = norms.amax(1)
    common = torch.where(unit_sum > 0, plain_sum / torch.where(unit_sum > 0, unit_sum, 1.0), largest)
    common = torch.minimum(common, largest)
    return torch.where(norms > 0, common[:, None] * inverse, 1.0)
