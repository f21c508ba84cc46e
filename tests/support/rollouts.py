"""Scripted rollouts and rewards: the same rows for our trainer and for TRL's, whatever the batching."""

import random

import torch
from datasets import Dataset

DOMAINS = ("chat", "instruction_following", "math")


def prompts(rows_per_domain: int, domains=DOMAINS) -> Dataset:
    """Prompts `wA wB wC`, a column `domain`, and a number by which rewards are drawn."""
    rows = []
    for d, domain in enumerate(domains):
        for i in range(rows_per_domain):
            draw = random.Random(f"{domain}/{i}")
            words = [f"w{draw.randrange(20 * d, 20 * d + 40)}" for _ in range(2 + draw.randrange(3))]
            rows.append({"prompt": " ".join(words), "domain": domain, "number": 1000 * d + i})
    return Dataset.from_list(rows)


class ScriptedRollouts:
    """A `rollout_func`: completions depend on the prompt, its occurrence and a salt only, not on the policy."""

    def __init__(self, salt: str = "", longest: int = 12, per_prompt: int = 4, prefix: dict[str, str] | None = None):
        self.salt, self.longest, self.per_prompt = salt, longest, per_prompt
        self.salts = prefix or {}
        self.seen: dict[str, int] = {}

    def __call__(self, prompts: list[str], trainer) -> dict:
        prompt_ids, completion_ids = [], []
        for prompt in prompts:
            count = self.seen[prompt] = self.seen.get(prompt, 0) + 1
            draw = random.Random(f"{self.salts.get(prompt, self.salt)}/{prompt}/{count}")
            length = random.Random(f"{prompt}/{count}").randrange(2, self.longest)
            prompt_ids.append(trainer.processing_class(prompt)["input_ids"])
            completion_ids.append([draw.randrange(3, 161) for _ in range(length)] + [1])
        return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None}


def reward(prompts, completions, completion_ids, **kwargs) -> list[float]:
    """A number that follows from the tokens alone."""
    return [random.Random(str(ids)).random() for ids in completion_ids]


def gradients(model) -> dict[str, torch.Tensor]:
    return {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}
