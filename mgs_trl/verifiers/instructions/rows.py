"""Reading the constraints of one dataset row, whichever of the published forms it has.

- `instruction_id_list` (ids) with `kwargs` (one mapping per id, None for absent arguments; or the JSON text
  of that list);
- `ground_truth`, function style: `{"func_name": ..., arguments}`, a list of them, or the JSON text of either;
- `ground_truth`, id style: `[{"instruction_id": [ids], "kwargs": [mappings]}]`, or its text.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mgs_trl.verifiers.instructions.registry import lookup

Parsed = list[tuple[str, dict[str, Any]]]


def parse_row(row: Mapping[str, Any]) -> Parsed:
    """(id, checked arguments) of each constraint of the row.

    Raises ValueError on an unknown id (with a suggestion), missing or unknown arguments, an empty list, or
    lists of different length.
    """
    if row.get("instruction_id_list") is not None:
        return _from_ids(_decoded(row["instruction_id_list"], "instruction_id_list"), row.get("kwargs"))
    return _from_ground_truth(_decoded(row.get("ground_truth"), "ground_truth"))


def _from_ids(ids: Any, arguments: Any) -> Parsed:
    if not isinstance(ids, (Sequence, type(None))):
        raise ValueError(f"instruction_id_list must be a list of instruction ids, got {ids!r}")
    ids = [ids] if isinstance(ids, str) else list(ids or [])
    if not ids:
        raise ValueError("instruction_id_list must name at least one instruction, got none")
    given = _decoded(arguments, "kwargs")
    given = [{}] * len(ids) if given is None else [given] if isinstance(given, Mapping) else given
    if isinstance(given, str):
        raise ValueError(f"kwargs must be a list of mappings, or that as JSON text, got {given[:80]!r}")
    if not isinstance(given, Sequence) or len(given) != len(ids):
        count = len(given) if isinstance(given, Sequence) else type(given).__name__
        raise ValueError(f"kwargs must hold one mapping per instruction, got {count} for {len(ids)} ids")
    return [(name, lookup(name).arguments(_mapping(one, name))) for name, one in zip(ids, given, strict=True)]


def _from_ground_truth(truth: Any) -> Parsed:
    items = [truth] if isinstance(truth, Mapping) else truth
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        raise ValueError(f"ground_truth must be a mapping with func_name, or a list of them, got {truth!r}")
    parsed: Parsed = []
    for item in items:
        if isinstance(item, Mapping) and item.get("func_name") is not None:
            parsed.append(_from_function(item))
        elif isinstance(item, Mapping) and item.get("instruction_id") is not None:
            parsed.extend(_from_ids(item["instruction_id"], item.get("kwargs")))
        else:
            raise ValueError(f"ground_truth must hold func_name or instruction_id, got {item!r}")
    return parsed


def _from_function(item: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Published rows carry every function's keys, mostly None and now and then filled: keys of others are
    dropped."""
    name = item["func_name"]
    constraint = lookup(name)
    known = {**constraint.required, **constraint.optional}
    return name, constraint.arguments({key: value for key, value in item.items() if key in known})


def _mapping(value: Any, name: str) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"kwargs of instruction {name!r} must be a mapping, got {value!r}")
    return value


def _decoded(value: Any, column: str) -> Any:
    """`value`, from its JSON (or Python literal) text if it looks like one."""
    if not isinstance(value, str):
        return value
    if value.strip() in ("null", "None"):
        return None
    if value.strip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(f"{column} must be JSON, got {value[:80]!r}") from None
