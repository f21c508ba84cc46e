"""How a run lies on its ranks, what each must hold, and how they agree."""
