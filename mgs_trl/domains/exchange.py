"""Which rank trains on which row: pure arithmetic on domains and lengths, the same answer on every rank."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Deal:
    """Rows of one rank in one window, ordered by domain.

    Attributes:
        rows: indices of the window's rows.
        real: False for a copy that only fills up the count; it must get no weight.
    """

    rows: tuple[int, ...]
    real: tuple[bool, ...]


def deal_rows(domains: Sequence[int], lengths: Sequence[int], ranks: int) -> list[Deal]:
    """Give every rank the same number of rows of each domain, with balanced token counts.

    In one process rows keep their order inside a domain. On several ranks, a domain's rows are dealt in order of
    falling length, one per rank and round, the longest to the rank with the fewest tokens so far: micro-steps then
    hold rows of similar length on all ranks, which wait for each other there. Where a domain's rows do not divide, the
    ranks that come out short get a copy of the domain's shortest row.

    Args:
        domains: domain index of each row of the window, over all ranks.
        lengths: tokens of each row.
        ranks: data-parallel ranks.

    Returns:
        A deal per rank; every deal holds `ceil(rows_d / ranks)` rows of each domain d, in domain order.
    """
    members = {d: [row for row, domain in enumerate(domains) if domain == d] for d in sorted(set(domains))}
    if ranks == 1:
        rows = tuple(row for d in members for row in members[d])
        return [Deal(rows, (True,) * len(rows))]
    loads = [0] * ranks
    dealt: list[list[tuple[int, bool]]] = [[] for _ in range(ranks)]
    for rows in members.values():
        falling = sorted(rows, key=lambda row: (-lengths[row], row))
        for start in range(0, len(falling), ranks):
            turn = sorted(range(ranks), key=lambda rank: (loads[rank], rank))
            hand = falling[start : start + ranks]
            for position, rank in enumerate(turn):
                row = hand[position] if position < len(hand) else falling[-1]
                dealt[rank].append((row, position < len(hand)))
                loads[rank] += lengths[row]
    return [Deal(tuple(row for row, _ in hand), tuple(real for _, real in hand)) for hand in dealt]


def token_imbalance(lengths: Sequence[int], deals: Sequence[Sequence[int]]) -> float:
    """Tokens of the busiest rank over the mean of all ranks, minus one; 0 is perfect balance."""
    tokens = [sum(lengths[row] for row in rows) for rows in deals]
    mean = sum(tokens) / len(tokens)
    return max(tokens) / mean - 1.0 if mean > 0 and math.isfinite(mean) else 0.0
