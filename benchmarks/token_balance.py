"""Tokens of the busiest rank over the mean, minus one: rows where they were generated, against rows as they are dealt.

    python benchmarks/token_balance.py

Lengths are long-tailed (log-normal, sigma 1, cut at 4096 tokens); domains differ in their medians. As generated, whole
prompt groups lie on a rank, as TRL lays them. Pure arithmetic: nothing is trained.
"""

import random
import statistics

from mgs_trl.domains.exchange import deal_rows, token_imbalance

MEDIANS = {"chat": 300, "instruction_following": 200, "math": 800}
GROUP = 8
WINDOWS = 200


def draw_window(prompts: int, generator: random.Random) -> tuple[list[int], list[int]]:
    """Domain and length of every row of a window, prompt groups in random order."""
    groups = [d for d in range(len(MEDIANS)) for _ in range(prompts // len(MEDIANS))]
    generator.shuffle(groups)
    domains = [d for d in groups for _ in range(GROUP)]
    medians = list(MEDIANS.values())
    lengths = [min(4096, max(1, round(medians[d] * generator.lognormvariate(0, 1)))) for d in domains]
    return domains, lengths


def main() -> None:
    print(f"{'ranks':>5} {'prompts':>8} {'as generated':>13} {'as dealt':>9}   means over {WINDOWS} windows")
    for ranks, prompts in ((2, 48), (4, 48), (8, 48), (8, 96), (16, 96), (48, 96)):
        generator = random.Random(0)
        before, after = [], []
        for _ in range(WINDOWS):
            domains, lengths = draw_window(prompts, generator)
            share = len(lengths) // ranks
            before.append(token_imbalance(lengths, [range(r * share, (r + 1) * share) for r in range(ranks)]))
            after.append(token_imbalance(lengths, [deal.rows for deal in deal_rows(domains, lengths, ranks)]))
        print(f"{ranks:5} {prompts:8} {statistics.mean(before):13.3f} {statistics.mean(after):9.3f}")


if __name__ == "__main__":
    main()
