"""Modular Gradient Surgery for multi-domain GRPO: a drop-in for TRL's `GRPOTrainer`.

`MGSTrainer` and `MGSConfig` are resolved on first use, so that `mgs_trl.surgery` and `mgs_trl.verifiers` can be
imported without TRL and transformers.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["MGSConfig", "MGSTrainer"]

if TYPE_CHECKING:
    from mgs_trl.config import MGSConfig
    from mgs_trl.trainer import MGSTrainer


def __getattr__(name: str) -> Any:
    if name == "MGSConfig":
        from mgs_trl.config import MGSConfig

        return MGSConfig
    if name == "MGSTrainer":
        from mgs_trl.trainer import MGSTrainer

        return MGSTrainer
    raise AttributeError(f"module 'mgs_trl' has no attribute {name!r}")
