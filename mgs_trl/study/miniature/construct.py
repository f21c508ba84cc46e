"""The work of building: data, reward model, then a policy warmed up until every domain's success is in range."""

from __future__ import annotations

import contextlib
import logging
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgs_trl.study.miniature import measure, preferences
from mgs_trl.study.miniature.data import (
    DOMAINS,
    MIXED,
    Rows,
    demonstrate,
    draw_demonstrations,
    draw_rows,
    write_rows,
)
from mgs_trl.study.miniature.policy import BATCH, new_policy, warm_up
from mgs_trl.study.miniature.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from tqdm import tqdm
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

RANGE = (
    0.2,
    0.6,
)  # success rates between which reinforcement has something to raise and something to start from
CHAT_QUANTILE = 0.6  # a chat answer succeeds above this quantile of the demonstrations' scores
THREADS = 1  # sums in another order are other weights, and with so small a model a second thread gains little


@dataclass(frozen=True)
class Size:
    """How much of everything is built.

    Attributes:
        answer: the most tokens of a demonstration and of a sampled answer.
        hidden, layers: of the policy.
    """

    answer: int = 48
    hidden: int = 128
    layers: int = 4
    train: int = 1024  # prompts per domain
    held_out: int = 128
    pool: int = 6000  # instruction-following prompts that demonstrations draw from
    pairs: int = 4800
    sum_steps: int = 200
    mixed_steps: int = 240
    round_steps: int = 40
    rounds: int = 4  # of further steps, at most, while a domain is out of range
    attempts: int = 3  # seeds of the policy, at most


SIZES = {
    "full": Size(),
    "small": Size(answer=24, hidden=96, layers=3),
    "quick": Size(
        train=48, held_out=16, pool=64, pairs=320, sum_steps=4, mixed_steps=8, round_steps=4, rounds=1, attempts=1
    ),
}


def construct(directory: Path, seed: int, size_name: str) -> dict[str, Any]:
    """Build everything but the manifest in `directory`, and return what the manifest says."""
    size = SIZES[size_name]
    started = time.monotonic()
    steps = size.pairs // preferences.REWARD_BATCH + size.sum_steps + size.mixed_steps
    with _quietly(), _bar(steps) as bar, tempfile.TemporaryDirectory() as scratch:
        rows = draw_rows(seed, max(size.pool, size.train), size.held_out)
        for domain, (train, held_out) in rows.items():
            write_rows(directory / "data" / f"{domain}_train.jsonl", train[: size.train])
            write_rows(directory / "data" / f"{domain}_heldout.jsonl", held_out)
        tokenizer = build_tokenizer()
        accuracy = _reward_model(directory / "reward_model", tokenizer, rows["chat"], size, seed, bar, scratch)
        score = measure.scorers(directory / "reward_model")
        threshold = _chat_threshold(score["chat"], rows["chat"][1], seed)
        policy = _Policy(tokenizer, rows, score, threshold, size, bar, scratch)
        outcome = policy.build(directory / "policy", seed, checked=size_name != "quick")
    return {
        **outcome,
        "range": RANGE,
        "chat_threshold": threshold,
        "reward_model_accuracy": accuracy,
        "prompts": {d: {"train": len(rows[d][0][: size.train]), "heldout": len(rows[d][1])} for d in DOMAINS},
        "max_completion_length": size.answer,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "tokenizers", "math-verify")},
        "seconds": round(time.monotonic() - started, 1),
    }


def _reward_model(
    directory: Path,
    tokenizer: PreTrainedTokenizerFast,
    rows: tuple[Rows, Rows],
    size: Size,
    seed: int,
    bar: tqdm,
    scratch: str,
) -> float:
    """Train and save the reward model; return its pair accuracy on held-out prompts."""
    bar.set_description("reward model")
    rng = random.Random(f"preferences {seed}")
    model = preferences.train_reward_model(
        tokenizer,
        preferences.pairs(rows[0], size.pairs, rng),
        seed=seed,
        directory=scratch,
        on_step=bar.update,
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return preferences.pair_accuracy(model, tokenizer, preferences.pairs(rows[1], 4 * size.held_out, rng))


def _chat_threshold(score: Callable[[Rows, list[str]], list[float]], rows: Rows, seed: int) -> float:
    """The score that an answer must exceed to count as a success: a quantile of the demonstrations' scores."""
    rng = random.Random(f"threshold {seed}")
    drawn = [rng.choice(rows) for _ in range(512)]
    values = sorted(score(drawn, [demonstrate(row, rng, {}) for row in drawn]))
    return round(values[int(CHAT_QUANTILE * len(values))], 4)


@dataclass
class _Policy:
    """What the warm-up of a policy needs besides a seed."""

    tokenizer: PreTrainedTokenizerFast
    rows: dict[str, tuple[Rows, Rows]]
    score: dict[str, Callable[[Rows, list[str]], list[float]]]
    threshold: float
    size: Size
    bar: tqdm
    scratch: str

    def build(self, directory: Path, seed: int, checked: bool) -> dict[str, Any]:
        """Warm up policies of successive seeds until one is in range; save it and return what became of each."""
        tried = []
        for attempt in range(self.size.attempts):
            model, outcome = self._attempt(seed + 1000 * attempt)
            tried.append(outcome["success_rate"])
            if _in_range(outcome["success_rate"]) or not checked:
                model.save_pretrained(directory)
                self.tokenizer.save_pretrained(directory)
                return {**outcome, "attempts": tried}
            self.bar.total += self.size.sum_steps + self.size.mixed_steps
        raise RuntimeError(f"no policy came into the range {RANGE} of success rates; the attempts reached {tried}")

    def _attempt(self, seed: int) -> tuple[LlamaForCausalLM, dict[str, Any]]:
        """Teach the tasks from clean demonstrations, then go on, with noise where a domain succeeds too often.

        Sums come alone first: the answers are short, so it is cheap, and among the others they take far longer.
        """
        rng, size = random.Random(f"demonstrations {seed}"), self.size
        noise: dict[str, float] = dict.fromkeys(DOMAINS, 0.0)
        model = new_policy(self.tokenizer, seed, self.size.hidden, self.size.layers)
        self._train("sums", model, {"math": 1.0}, noise, rng, size.sum_steps, 3e-3)
        self._train("warm-up", model, MIXED, noise, rng, size.mixed_steps, 3e-3)
        rates, means = self._measure(model, seed)
        for _ in range(size.rounds):
            if _in_range(rates):
                break
            noise = {domain: _adjusted(noise[domain], rates[domain]) for domain in DOMAINS}
            self.bar.total += size.round_steps
            self._train("adjusting", model, MIXED, noise, rng, size.round_steps, 8e-4)
            rates, means = self._measure(model, seed)
        return model, {"success_rate": rates, "mean_score": means, "noise": noise, "policy_seed": seed}

    def _fits(self, answer: str) -> bool:
        """Whether the policy has the tokens to give `answer` and to end it."""
        return len(self.tokenizer(answer)["input_ids"]) < self.size.answer  # type: ignore[arg-type]

    def _measure(self, model: LlamaForCausalLM, seed: int) -> tuple[dict[str, float], dict[str, float]]:
        held_out = {domain: self.rows[domain][1] for domain in DOMAINS}
        return measure.success_rates(
            model, self.tokenizer, held_out, self.score, self.threshold, seed, self.size.answer
        )

    def _train(
        self,
        stage: str,
        model: LlamaForCausalLM,
        shares: dict[str, float],
        noise: dict[str, float],
        rng: random.Random,
        steps: int,
        learning_rate: float,
    ) -> None:
        self.bar.set_description(stage)
        pools = {domain: train for domain, (train, _) in self.rows.items()}
        warm_up(
            model,
            self.tokenizer,
            draw_demonstrations(pools, shares, steps * BATCH, noise, rng, self._fits),
            steps=steps,
            learning_rate=learning_rate,
            directory=self.scratch,
            on_step=self.bar.update,
        )


def _in_range(rates: dict[str, float]) -> bool:
    return all(RANGE[0] <= rate <= RANGE[1] for rate in rates.values())


def _adjusted(noise: float, rate: float) -> float:
    """More noise for a domain that succeeds too often, none for one that succeeds too rarely."""
    if rate > RANGE[1]:
        return min(0.9, noise + 0.2)
    return 0.0 if rate < RANGE[0] else noise


def _bar(total: int) -> tqdm:
    from tqdm import tqdm

    return tqdm(total=total, unit="step", desc="miniature")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """No bars and notices of the libraries, the seeds and threads of torch as wanted, and all of it put back after."""
    import datasets
    import torch
    from transformers.utils import logging as transformers_logging

    threads, bars = torch.get_num_threads(), datasets.are_progress_bars_disabled()
    loggers = [logging.getLogger(name) for name in ("trl", "accelerate", "datasets")]
    levels = [logger.level for logger in loggers]
    verbosity = transformers_logging.get_verbosity()
    own_bars = transformers_logging.is_progress_bar_enabled()
    try:
        torch.set_num_threads(THREADS)
        datasets.disable_progress_bars()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
        transformers_logging.set_verbosity(verbosity)
        if own_bars:
            transformers_logging.enable_progress_bar()
        if not bars:
            datasets.enable_progress_bars()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
