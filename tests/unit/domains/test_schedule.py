"""Invariant 6: quotas and windows, as arithmetic."""

import math
import re
from collections import Counter
from fractions import Fraction
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgs_trl.domains import DomainSampler, plan_window, quotas, schedule
from mgs_trl.domains.exchange import deal_rows, token_imbalance

MIXTURES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 50), min_size=1, max_size=5)


def largest_remainder(mixture: dict[str, int], prompts: int) -> dict[str, int]:
    """Hamilton's method in exact fractions."""
    total = sum(mixture.values())
    exact = {name: Fraction(prompts * share, total) for name, share in mixture.items()}
    result = {name: int(value) for name, value in exact.items()}
    left = prompts - sum(result.values())
    for name in sorted(mixture, key=lambda n: (-(exact[n] - int(exact[n])), n))[:left]:
        result[name] += 1
    return result


@given(MIXTURES, st.integers(1, 300))
def test_quotas_are_largest_remainders(mixture, prompts):
    expected = largest_remainder(mixture, prompts)
    if min(expected.values()) < 1:
        with pytest.raises(ValueError, match="smallest window"):
            quotas(mixture, prompts)
        return
    assert quotas(mixture, prompts) == expected
    assert list(quotas(mixture, prompts)) == sorted(mixture)
    # Shares are relative: decimals that sum to one give the same quotas.
    total = sum(mixture.values())
    assert quotas({n: s / total for n, s in mixture.items()}, prompts) == expected


@given(MIXTURES, st.integers(1, 60))
def test_the_smallest_window_that_is_named_is_the_smallest(mixture, prompts):
    if min(largest_remainder(mixture, prompts).values()) > 0:
        return
    smallest = next(n for n in count(prompts) if min(largest_remainder(mixture, n).values()) > 0)
    with pytest.raises(ValueError, match=rf"gives every domain at least one is {smallest} prompts"):
        quotas(mixture, prompts)


@pytest.mark.parametrize("share", [1e-7, 1e-9, 1e-12])
def test_the_smallest_window_of_a_tiny_share_is_not_looked_for_one_by_one(share, monkeypatch):
    """Up to half a prompt of two domains there is none: at a share of 1e-9 an hour of trying."""
    tried = []
    whole = schedule._largest_remainder
    monkeypatch.setattr(schedule, "_largest_remainder", lambda *args: (tried.append(args[1]), whole(*args))[1])
    with pytest.raises(ValueError, match="smallest window") as caught:
        quotas({"a": 1.0, "b": share, "c": 1.0}, 64)
    smallest = int(re.search(r"one is (\d+) prompts", str(caught.value))[1])
    assert smallest == pytest.approx(2 / 3 / share, rel=1e-6) and len(tried) < 1000


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 9), st.integers(1, 6))
def test_plan_covers_every_row_once_in_blocks_of_one_domain(rows, ranks, micro_batch, steps):
    plan = plan_window(rows, ranks, micro_batch, steps)
    assert len(plan.micro_steps) == steps
    assert list(plan.rows_per_domain) == [math.ceil(n / ranks) for n in rows]
    blocks = [block for step in plan.micro_steps for block in step]
    assert [block.start for block in blocks] == [0, *[block.stop for block in blocks[:-1]]]
    assert blocks[-1].stop == sum(plan.rows_per_domain)
    for block in blocks:
        before = sum(plan.rows_per_domain[: block.domain])
        end = before + plan.rows_per_domain[block.domain]
        assert before <= block.start < block.stop <= end
        assert block.stop - block.start <= micro_batch
        assert block.ends_domain == (block.stop == end)


def test_plan_of_a_straddling_micro_batch():
    plan = plan_window([6, 6], 1, 4, 3)
    assert [[(b.domain, b.start, b.stop) for b in step] for step in plan.micro_steps] == [
        [(0, 0, 4)],
        [(0, 4, 6), (1, 6, 8)],
        [(1, 8, 12)],
    ]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 500)), min_size=1, max_size=60),
    st.integers(1, 7),
)
def test_every_row_is_dealt_once_and_ranks_get_equal_counts(rows, ranks):
    domains, lengths = [d for d, _ in rows], [n for _, n in rows]
    deals = deal_rows(domains, lengths, ranks)
    real = [row for deal in deals for row, is_real in zip(deal.rows, deal.real, strict=True) if is_real]
    assert sorted(real) == list(range(len(rows)))
    for deal in deals:
        dealt = [domains[row] for row in deal.rows]
        assert dealt == sorted(dealt)
        assert Counter(dealt) == {d: math.ceil(n / ranks) for d, n in Counter(domains).items()}


def test_deal_in_one_process_keeps_the_order_inside_a_domain():
    assert deal_rows([1, 0, 1, 0], [5, 1, 9, 3], 1)[0].rows == (1, 3, 0, 2)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_dealing_balances_long_tails(ranks):
    """Against rows left where they were generated, over 50 windows of Pareto-distributed lengths."""
    import random

    ours, as_generated = 0.0, 0.0
    for seed in range(50):
        draw = random.Random(seed)
        lengths = [int(draw.paretovariate(1.2) * 50) % 4096 + 1 for _ in range(32 * ranks)]
        domains = [i * 3 // len(lengths) for i in range(len(lengths))]
        size = len(lengths) // ranks
        ours += token_imbalance(lengths, [deal.rows for deal in deal_rows(domains, lengths, ranks)])
        as_generated += token_imbalance(lengths, [range(r * size, (r + 1) * size) for r in range(ranks)])
    assert ours < 0.5 * as_generated


def sampler(sizes: dict[str, int], per_window: dict[str, int], **options) -> DomainSampler:
    labels = [name for name, size in sizes.items() for _ in range(size)]
    return DomainSampler(labels, per_window, **{"num_generations": 2, **options})


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 30), st.integers(1, 6)), min_size=2),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_every_window_holds_the_quotas_and_small_domains_wrap(domains, windows, repeats, seed):
    """D2: each pass over a domain shows every row once before any comes again."""
    sizes = {name: size for name, (size, _) in sorted(domains.items())}
    wanted = {name: quota for name, (_, quota) in sorted(domains.items())}
    s = sampler(sizes, wanted, windows=windows, repeats=repeats, seed=seed)
    label = [name for name, size in sizes.items() for _ in range(size)]
    order = list(s)
    assert len(order) == len(s)
    per_batch = sum(wanted.values()) * windows * 2
    drawn: dict[str, list[int]] = {name: [] for name in sizes}
    for start in range(0, len(order), per_batch * repeats):
        copies = [order[start + k * per_batch : start + (k + 1) * per_batch] for k in range(repeats)]
        assert all(copy == copies[0] for copy in copies)
        assert copies[0][::2] == copies[0][1::2]  # two generations of each prompt, side by side
        prompts = copies[0][::2]
        for w in range(windows):
            window = prompts[w * sum(wanted.values()) : (w + 1) * sum(wanted.values())]
            assert Counter(label[row] for row in window) == wanted
            for name in sizes:
                drawn[name] += [row for row in window if label[row] == name]
    for name, rows in drawn.items():
        for lap in range(0, len(rows) - sizes[name] + 1, sizes[name]):
            assert len(set(rows[lap : lap + sizes[name]])) == sizes[name]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 5), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_no_window_holds_a_row_twice_that_need_not(rows, quota, seed, later):
    """Also where a pass ends inside it; a pass still holds every row once, and the position alone says what comes."""
    sampler = DomainSampler(["a"] * rows, {"a": quota}, num_generations=2, seed=seed)
    windows = [sampler.window(number) for number in range(later + 3)]
    if quota <= rows:
        assert all(len(set(window)) == quota for window in windows)
    drawn = [row for window in windows for row in window]
    for start in range(0, len(drawn) - rows + 1, rows):
        assert sorted(drawn[start : start + rows]) == list(range(rows))
    assert DomainSampler(["a"] * rows, {"a": quota}, num_generations=2, seed=seed).window(later) == windows[later]


def test_the_next_epoch_goes_on_where_the_last_one_stopped():
    """D6: no plan is replayed each epoch, and an epoch's start follows from its number alone."""
    epoch = [0]
    s = sampler({"a": 5, "b": 50}, {"a": 2, "b": 3}, seed=3, epoch=lambda: epoch[0])
    first = list(s)
    epoch[0] = 1
    second = list(s)
    fresh = sampler({"a": 5, "b": 50}, {"a": 2, "b": 3}, seed=3, epoch=lambda: 1)
    assert second == list(fresh) != first
    a = [row for row in first + second if row < 5][::2]
    assert all(len(set(a[i : i + 5])) == 5 for i in range(0, len(a) - 4, 5))


def test_unshuffled_domains_keep_dataset_order():
    """D5: a curriculum is not shuffled away."""
    s = sampler({"a": 6, "b": 6}, {"a": 2, "b": 1}, shuffle=False)
    rows = list(s)[::2]
    assert [row for row in rows if row < 6][:4] == [0, 1, 2, 3]
    assert [row for row in rows if row >= 6][:2] == [6, 7]


def test_same_seed_same_order_in_another_process():
    import subprocess
    import sys

    code = (
        "from mgs_trl.domains import DomainSampler;"
        "print(list(DomainSampler(['a']*9+['b']*9, {'a':2,'b':2}, 1, seed=5)))"
    )

    def run(hash_seed: int) -> str:
        environment = {"PYTHONHASHSEED": str(hash_seed)}
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout

    runs = {run(1), run(2)}
    assert len(runs) == 1
    assert runs.pop().strip() == str(list(DomainSampler(["a"] * 9 + ["b"] * 9, {"a": 2, "b": 2}, 1, seed=5)))


def test_interleaving_gives_every_part_of_a_window_a_mix():
    window = sampler({"a": 30, "b": 30}, {"a": 8, "b": 4}).window(0)
    for third in range(3):
        assert sum(row < 30 for row in window[third * 4 : third * 4 + 4]) in (2, 3)


def test_empty_domain_is_named():
    """D1."""
    with pytest.raises(ValueError, match="'c' has no rows"):
        DomainSampler(["a", "b"], {"a": 1, "b": 1, "c": 1}, 2)
