"""Verifiers: reward functions that score the rows of their domain, cannot hang a run, and say what went
wrong.

Usable in recipes through `build_verifier`, and directly as TRL reward functions: `math_verifier`,
`ifeval_verifier`, `RewardModelVerifier(model=...)`. Importing this package imports neither torch nor
transformers.
"""

from mgs_trl.verifiers.base import IsolatedVerifier, Verifier
from mgs_trl.verifiers.errors import VerifierError
from mgs_trl.verifiers.functions import function_verifier
from mgs_trl.verifiers.guard import guard_reward
from mgs_trl.verifiers.instructions.verifier import IFEvalVerifier, ifeval_verifier
from mgs_trl.verifiers.math import MathVerifier, ThinkingFormat, math_verifier
from mgs_trl.verifiers.pool import PoolError, WorkerPool, configure_pool, shared_pool
from mgs_trl.verifiers.registry import VERIFIERS, build_verifier, register_verifier
from mgs_trl.verifiers.reward_model import RewardModelVerifier
from mgs_trl.verifiers.reward_server import RewardServerVerifier
from mgs_trl.verifiers.thinking import strip_thinking

__all__ = [
    "VERIFIERS",
    "IFEvalVerifier",
    "IsolatedVerifier",
    "MathVerifier",
    "PoolError",
    "RewardModelVerifier",
    "RewardServerVerifier",
    "ThinkingFormat",
    "Verifier",
    "VerifierError",
    "WorkerPool",
    "build_verifier",
    "configure_pool",
    "function_verifier",
    "guard_reward",
    "ifeval_verifier",
    "math_verifier",
    "register_verifier",
    "shared_pool",
    "strip_thinking",
]
