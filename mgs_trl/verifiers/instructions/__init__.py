"""Verifiable instructions: the 25 of the IFEval benchmark and the function-style ones of RLVR-IFeval.

Importing this package fills the registry.
"""

from mgs_trl.verifiers.instructions import content, form, functions  # noqa: F401  they register their constraints
from mgs_trl.verifiers.instructions.judge import judge
from mgs_trl.verifiers.instructions.registry import CONSTRAINTS, Constraint, constraint, lookup
from mgs_trl.verifiers.instructions.rows import parse_row

__all__ = ["CONSTRAINTS", "Constraint", "constraint", "judge", "lookup", "parse_row"]
