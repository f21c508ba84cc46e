"""Domains: how many prompts of each make a window, and in which order they come."""

from mgs_trl.domains.sampler import DomainSampler
from mgs_trl.domains.schedule import WindowPlan, plan_window, quotas

__all__ = ["DomainSampler", "WindowPlan", "plan_window", "quotas"]
