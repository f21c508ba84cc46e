"""One scorer for all ranks of a node: rows travel to its first rank, scores travel back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from mgs_trl.verifiers.arrival import Arrivals
from mgs_trl.verifiers.errors import VerifierError

_made = count()  # equal on all ranks, since making a node is a collective


@dataclass(frozen=True)
class Node:
    """The ranks of this node; `root` is the first, and `first` whether this rank is it."""

    group: Any
    root: int
    first: bool
    size: int
    arrivals: Arrivals

    @classmethod
    def mine(cls) -> Node | None:
        """This rank's node; None without torch.distributed or with one rank per node.

        A collective: every rank of the run calls it. Nodes hold LOCAL_WORLD_SIZE consecutive ranks. Raises
        VerifierError when another rank failed before it came here.
        """
        import torch.distributed as dist

        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if not dist.is_initialized() or local == 1:
            return None
        mine, number = None, next(_made)
        Arrivals(f"node {number}", range(dist.get_world_size())).wait()
        for root in range(0, dist.get_world_size(), local):
            ranks = list(range(root, min(root + local, dist.get_world_size())))
            group = dist.new_group(ranks, backend="gloo")  # token rows are objects on the host
            if dist.get_rank() in ranks:
                mine = cls(group, root, dist.get_rank() == root, len(ranks), Arrivals(f"scoring {number}", ranks))
        return mine

    def score(self, score: Callable[[list], list], rows: list) -> list:
        """The scores of this rank's `rows`, computed by `score` on the first rank together with all others'.

        Raises VerifierError on every rank when `score` fails, or another rank failed before it came here: none
        is left waiting for the others.
        """
        import torch.distributed as dist

        self.arrivals.wait()
        gathered: list = [None] * self.size
        dist.gather_object(rows, gathered if self.first else None, dst=self.root, group=self.group)
        answers: list = [None] * self.size
        if self.first:
            answers = self._answers(score, gathered)
        mine: list = [None]
        dist.scatter_object_list(mine, answers if self.first else None, src=self.root, group=self.group)
        if isinstance(mine[0], str):
            raise VerifierError(f"the reward model on rank {self.root} failed: {mine[0]}")
        return mine[0]

    def _answers(self, score: Callable[[list], list], gathered: list[list]) -> list:
        try:
            scores = score([row for rows in gathered for row in rows])
        except Exception as error:  # every rank has to hear of it
            return [f"{type(error).__name__}: {error}"] * self.size
        answers = []
        for rows in gathered:
            answers.append(scores[: len(rows)])
            scores = scores[len(rows) :]
        return answers
