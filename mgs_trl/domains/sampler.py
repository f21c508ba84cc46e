"""The training sampler: whole windows with exact quotas, the same on every rank, resumable by position."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch.utils.data import Sampler


class DomainSampler(Sampler[int]):
    """Yields dataset indices in the layout that `GRPOTrainer` expects, with `quotas[d]` prompts of d per window.

    A generation batch is `windows` windows of prompts; every index is repeated `num_generations` times, and the whole
    generation batch `repeats` times (TRL takes one copy per training step and uses the first). Inside a window the
    domains are interleaved evenly, so every rank generates a mix and long completions of one domain overlap with
    short ones of another.

        quotas {a: 2, b: 1}, num_generations 2, 1 window     a a b b a a | a a b b a a | ...

    What comes at a position depends on (seed, domain, position) only: each domain walks through its rows in a fresh
    shuffle per pass and wraps when they are used up, in the middle of a window if need be, but no window of at most as
    many prompts as there are rows holds a row twice. So the position is restored from the trainer's step count alone,
    on any number of ranks.

    Args:
        domain_of_row: domain name of every dataset row.
        quotas: prompts per window by domain.
        num_generations: completions per prompt (G).
        windows: windows per generation batch.
        repeats: copies of each generation batch (`num_iterations * steps_per_generation`).
        seed: fixes the order of prompts.
        shuffle: False keeps each domain's rows in dataset order (for curricula).
        epoch: called when an epoch starts; which epoch it is (resuming starts in the middle of a run).

    Raises:
        ValueError: a domain with a quota and no rows.
    """

    def __init__(
        self,
        domain_of_row: Sequence[str],
        quotas: Mapping[str, int],
        num_generations: int,
        windows: int = 1,
        repeats: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        epoch: Callable[[], int] = lambda: 0,
    ):
        self.quotas = dict(sorted(quotas.items()))
        self.rows: dict[str, list[int]] = {name: [] for name in self.quotas}
        for row, name in enumerate(domain_of_row):
            if name in self.rows:
                self.rows[name].append(row)
        empty = [name for name, rows in self.rows.items() if not rows]
        if empty:
            raise ValueError(f"domain {empty[0]!r} has no rows in the training data, but each needs at least 1.")
        self.num_generations = num_generations
        self.windows = windows
        self.repeats = repeats
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = epoch
        self.prompts_per_window = sum(self.quotas.values())
        total = sum(len(rows) for rows in self.rows.values())
        self._shuffled: dict[str, tuple[int, list[int]]] = {}  # the current pass of each domain
        self.batches_per_epoch = max(1, total // (self.prompts_per_window * windows))

    def __len__(self) -> int:
        return self.batches_per_epoch * self.windows * self.prompts_per_window * self.num_generations * self.repeats

    def __iter__(self) -> Iterator[int]:
        first = self.epoch() * self.batches_per_epoch
        for batch in range(first, first + self.batches_per_epoch):
            prompts = [row for w in range(self.windows) for row in self.window(batch * self.windows + w)]
            for _ in range(self.repeats):
                for row in prompts:
                    for _ in range(self.num_generations):
                        yield row

    def window(self, index: int) -> list[int]:
        """The prompts (dataset rows) of window `index`, counted from the start of training."""
        drawn = []
        for name, quota in self.quotas.items():
            rows = [self._row_at(name, index * quota + k) for k in range(quota)]
            drawn += [((k + 0.5) / quota, name, row) for k, row in enumerate(rows)]
        return [row for _, _, row in sorted(drawn, key=lambda item: item[:2])]

    def _row_at(self, name: str, position: int) -> int:
        rows = self.rows[name]
        lap, offset = divmod(position, len(rows))
        return self._order(name, lap)[offset]

    def _order(self, name: str, lap: int) -> list[int]:
        if not self.shuffle:
            return self.rows[name]
        last, order = self._shuffled.get(name, (-1, []))
        if lap < last:
            last, order = -1, []
        for number in range(last + 1, lap + 1):
            order = self._next_order(name, number, order)
        self._shuffled[name] = (lap, order)
        return order

    def _next_order(self, name: str, lap: int, before: Sequence[int]) -> list[int]:
        """A fresh shuffle. Where it begins inside a window, rows that come there already, from the pass `before`, wait
        for the windows after it, unless the window takes more rows than there are."""
        order = list(self.rows[name])
        # A string seed is hashed by `random` itself, so it is the same on every rank and in every process.
        random.Random(f"{self.seed}/{name}/{lap}").shuffle(order)
        quota = self.quotas[name]
        drawn = lap * len(order) % quota
        if drawn == 0 or quota > len(order):
            return order
        there = set(before[-drawn:])
        first = [row for row in order if row not in there][: quota - drawn]
        chosen = set(first)
        return first + [row for row in order if row not in chosen]
