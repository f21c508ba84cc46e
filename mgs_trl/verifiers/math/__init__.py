"""The math verifier: from a completion to its answer (`judge`), and whether that equals the gold one (`agree`)."""

from mgs_trl.verifiers.math.verifier import MathVerifier, ThinkingFormat, math_verifier

__all__ = ["MathVerifier", "ThinkingFormat", "math_verifier"]
