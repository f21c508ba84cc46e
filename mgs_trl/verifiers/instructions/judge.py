"""Judging one response by its constraints; runs in a worker process."""

from __future__ import annotations

from typing import Any

from mgs_trl.verifiers.instructions.registry import lookup


def judge(response: str, constraints: list[tuple[str, dict[str, Any]]], loose: bool = False) -> list[bool]:
    """Whether each constraint is followed. A blank response follows none.

    `loose`: the benchmark's upper bound, the best over the response with its first line, last line, both,
    and all asterisks removed.
    """
    variants = loose_variants(response) if loose else [response]
    variants = [variant for variant in variants if variant.strip()]
    return [any(lookup(name).check(text, **arguments) for text in variants) for name, arguments in constraints]


def loose_variants(response: str) -> list[str]:
    """The eight texts of the loose mode, the response first, without repetitions."""
    lines = response.split("\n")
    cuts = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys([*cuts, *(cut.replace("*", "") for cut in cuts)]))


def warm_up() -> None:
    """Fill the registry and load langdetect's profiles before the first sample's clock runs."""
    import mgs_trl.verifiers.instructions  # noqa: F401  registers the constraints
    from mgs_trl.verifiers.instructions.language import is_language

    is_language("This text loads the language profiles.", "en")
