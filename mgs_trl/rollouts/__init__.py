"""Rollouts: how the policy's weights reach vLLM where TRL's own path does not serve."""

from mgs_trl.rollouts.colocated_cpu import cpu_engine, reload_weights

__all__ = ["cpu_engine", "reload_weights"]
