"""The constraints by id: what each checks and which arguments it needs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mgs_trl.verifiers.instructions.parameters import Kind


@dataclass(frozen=True)
class Constraint:
    """`check(response, **arguments) -> bool`; `required` and `optional` name the arguments and their
    kinds."""

    name: str
    check: Callable[..., bool]
    required: Mapping[str, Kind] = field(default_factory=dict)
    optional: Mapping[str, Kind] = field(default_factory=dict)

    def arguments(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """The checked arguments in `given`, whose None values mean absent (tables fill gaps with None).

        Raises ValueError naming the constraint and the argument that is missing, unknown or of the wrong
        kind. Arguments are never invented: a missing one is an error.
        """
        present = {name: value for name, value in (given or {}).items() if value is not None}
        kinds = {**self.required, **self.optional}
        missing = [name for name in self.required if name not in present]
        if missing:
            raise ValueError(f"instruction {self.name!r} needs the argument {missing[0]!r}, got {sorted(present)}")
        unknown = [name for name in present if name not in kinds]
        if unknown:
            takes = ", ".join(kinds) or "none"
            raise ValueError(f"instruction {self.name!r} has no argument {unknown[0]!r}, it takes {takes}")
        checked = {}
        for name, value in present.items():
            try:
                checked[name] = kinds[name](value)
            except (ValueError, OverflowError) as error:
                raise ValueError(f"instruction {self.name!r}, argument {name!r}: {error}, got {value!r}") from None
        return checked


CONSTRAINTS: dict[str, Constraint] = {}


def constraint(name: str, optional: Mapping[str, Kind] | None = None, **required: Kind):
    """Register the decorated function as the check of constraint `name`."""

    def register(check: Callable[..., bool]) -> Callable[..., bool]:
        CONSTRAINTS[name] = Constraint(name, check, required, optional or {})
        return check

    return register


def lookup(name: str) -> Constraint:
    """The constraint called `name`; raises ValueError with the nearest known name."""
    if not isinstance(name, str) or name not in CONSTRAINTS:
        near = difflib.get_close_matches(str(name), CONSTRAINTS, n=1)
        hint = f", did you mean {near[0]!r}" if near else ""
        raise ValueError(f"instruction id {name!r} is unknown{hint}; {len(CONSTRAINTS)} ids are known")
    return CONSTRAINTS[name]
