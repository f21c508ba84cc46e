"""Pure arithmetic of quotas and windows: no data, no tensors, the same answer on every rank."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


def check_mixture(mixture: Mapping[str, float], domains: Sequence[str]) -> dict[str, float]:
    """The share of each domain, by sorted name.

    Args:
        mixture: relative shares; need not sum to one.
        domains: the domains present in the data.

    Raises:
        ValueError: a share that is not a positive finite number, a domain in the mixture that the data lacks, or a
            domain of the data without a share.
    """
    for name, share in mixture.items():
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not math.isfinite(share) or share <= 0:
            raise ValueError(f"mixture[{name!r}] is {share!r}, but a share must be a number greater than 0.")
    unknown = sorted(set(mixture) - set(domains))
    if unknown:
        raise ValueError(
            f"mixture names the domain {unknown[0]!r}, but the data has only the domains {sorted(domains)}."
        )
    missing = sorted(set(domains) - set(mixture))
    if missing:
        raise ValueError(
            f"mixture has no share for the domain {missing[0]!r}, but each of {sorted(domains)} needs one."
        )
    return {name: float(mixture[name]) for name in sorted(mixture)}


def _largest_remainder(mixture: Mapping[str, float], prompts: int) -> dict[str, int]:
    total = sum(mixture.values())
    exact = {name: prompts * mixture[name] / total for name in sorted(mixture)}
    # Shares such as 0.1 + 0.2 must not lose a prompt to rounding: 2.9999999999999996 counts as 3.
    whole = {name: math.floor(round(value, 9)) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (-round(exact[name] - whole[name], 9), name))
    for name in by_remainder[: prompts - sum(whole.values())]:
        whole[name] += 1
    return whole


def quotas(mixture: Mapping[str, float], prompts: int) -> dict[str, int]:
    """Prompts of each domain in one window, by the largest-remainder method; ties go to the first name.

    Args:
        mixture: positive relative shares by domain name.
        prompts: prompts in one window, over all ranks.

    Returns:
        Prompts by domain, in order of the sorted names; they sum to `prompts`.

    Raises:
        ValueError: a domain would get no prompt; the message names the smallest window that gives every domain one.
    """
    result = _largest_remainder(mixture, prompts)
    starved = [name for name, quota in result.items() if quota < 1]
    if starved:
        # A share of less than 1 / n of a prompt, of n domains, is never rounded up to one: no need to look below that.
        smallest = max(prompts + 1, math.floor(sum(mixture.values()) / (len(mixture) * min(mixture.values()))))
        while min(_largest_remainder(mixture, smallest).values()) < 1:
            smallest += 1
        raise ValueError(
            f"mixture gives the domain {starved[0]!r} no prompt in a window of {prompts} prompts; the smallest window "
            f"that gives every domain at least one is {smallest} prompts."
        )
    return result


@dataclass(frozen=True)
class RowRange:
    """Consecutive rows of one domain that go through the model together: one forward, one backward.

    Attributes:
        domain: index into the sorted domain names.
        start, stop: rows of this rank's window.
        ends_domain: whether this is the domain's last range in the window (a reduction boundary).
    """

    domain: int
    start: int
    stop: int
    ends_domain: bool


@dataclass(frozen=True)
class WindowPlan:
    """How one window is walked, the same on every rank.

    Attributes:
        rows_per_domain: rows of each domain on every rank, zero-weight padding included.
        micro_steps: for each of the window's training steps, the row ranges it processes in order.
    """

    rows_per_domain: tuple[int, ...]
    micro_steps: tuple[tuple[RowRange, ...], ...]


def plan_window(
    rows_per_domain: Sequence[int], ranks: int, micro_batch_size: int, gradient_accumulation_steps: int
) -> WindowPlan:
    """Cut a window, ordered by domain, into micro-steps.

    Every rank gets `ceil(rows / ranks)` rows of each domain. Rows are cut at every multiple of the micro-batch size
    and at every domain's end, so no range holds more rows than a micro-batch; when padding makes more micro-batches
    than `gradient_accumulation_steps`, some micro-steps take two.

        micro_batch_size 4, rows 6 + 6, 3 micro-steps     |aaaa|aabb|bbbb|   ->   (aaaa) (aa, bb) (bbbb)

    Args:
        rows_per_domain: rows of each domain in the window over all ranks, in domain order; each at least 1.
        ranks: data-parallel ranks.
        micro_batch_size: rows that a rank's forward takes at most.
        gradient_accumulation_steps: training steps in the window.
    """
    local = [math.ceil(rows / ranks) for rows in rows_per_domain]
    ends = [sum(local[: d + 1]) for d in range(len(local))]
    total = ends[-1]
    cuts = sorted({*range(0, total, micro_batch_size), *ends, 0})
    ranges = []
    domain = 0
    for start, stop in pairwise(cuts):
        while start >= ends[domain]:
            domain += 1
        ranges.append(RowRange(domain, start, stop, ends_domain=stop == ends[domain]))
    micro_batches: list[list[RowRange]] = [[] for _ in range(math.ceil(total / micro_batch_size))]
    for part in ranges:
        micro_batches[part.start // micro_batch_size].append(part)
    count = len(micro_batches)
    steps = gradient_accumulation_steps
    grouped = [
        tuple(part for batch in micro_batches[i * count // steps : (i + 1) * count // steps] for part in batch)
        for i in range(steps)
    ]
    return WindowPlan(tuple(local), tuple(grouped))
