"""Checks of options, with messages that name the option, its value and what is allowed."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from mgs_trl.surgery.modules import KINDS, LONE_KINDS, Module


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raises ValueError, with the nearest allowed value, unless `value` is one of `allowed`."""
    allowed = list(allowed)
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} is {value!r}, but it must be one of {allowed}.{hint}")


def check_exclude(name: str, kinds: Sequence[str], granularity: str) -> None:
    """Raises ValueError unless there are modules of just these kinds at `granularity`: a layer, or the model as one
    module, has parameters of several kinds."""
    allowed = {"global": (), "layer": LONE_KINDS}.get(granularity, KINDS)
    if kinds and not allowed:
        raise ValueError(
            f"{name} is {list(kinds)!r}, but at granularity {granularity!r} there are no kinds to exclude."
        )
    for kind in kinds:
        check_choice(f"{name} (granularity {granularity!r})", kind, allowed)


def check_operated(
    prefix: str, exclude: Sequence[str], top_modules: float | int | None, modules: Sequence[Module]
) -> None:
    """Raises ValueError for options that ask for other modules than there are, or leave surgery none to act on.

    Args:
        prefix: of the options' names, `surgery_exclude` and `surgery_top_modules`, in messages.
        modules: those of the model.
    """
    there = {module.kind for module in modules}
    kinds = f"the kinds of the modules that are trained are {', '.join(sorted(there))}"
    if absent := [kind for kind in exclude if kind not in there]:
        raise ValueError(f"{prefix}surgery_exclude has {', '.join(map(repr, absent))}, but {kinds}.")
    if there <= set(exclude):
        raise ValueError(f"{prefix}surgery_exclude is {list(exclude)!r}, but {kinds}: surgery would act on none.")
    if isinstance(top_modules, int) and top_modules > len(modules):
        raise ValueError(f"{prefix}surgery_top_modules is {top_modules}, but there are only {len(modules)} modules.")


def check_top_modules(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is None, an int of at least 1, or a float in (0, 1]."""
    if value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not value > 0 or (isinstance(value, float) and value > 1):
        raise ValueError(
            f"{name} is {value!r}, but it must be a number of modules (an int of at least 1) or a share of them (a "
            "float above 0 and at most 1)."
        )
