"""What a failing verifier raises: one error that names the verifier, the domain and the sample."""

from __future__ import annotations

from typing import Any

from mgs_trl.verifiers.completions import excerpt


class VerifierError(RuntimeError):
    """A verifier raised, or returned something that is no score."""


def sample_error(name: str, domain: Any, index: int, problem: str, prompt: Any, completion: Any) -> VerifierError:
    """`problem` with the names a person needs to reproduce it."""
    return VerifierError(
        f"verifier {name!r}, domain {domain!r}, sample {index}: {problem}; "
        f"prompt {excerpt(prompt)}, completion {excerpt(completion)}"
    )
