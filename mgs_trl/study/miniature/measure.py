"""Success rates of a policy on the miniature: sampled at temperature 1, scored by the verifiers of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]], seed: int, length: int
) -> list[str]:
    """One sampled answer per row (temperature 1, at most `length` tokens), the same for the same seed."""
    import torch

    prompts = [tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False) for row in rows]
    inputs = tokenizer(prompts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt")  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        generator: Any = model.eval()
        tokens = generator.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=length,
            do_sample=True,
            temperature=1.0,
            top_k=0,
        )
    return tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def scorers(reward_model: Path | str) -> dict[str, Callable[[list[dict[str, Any]], list[str]], list[float]]]:
    """For each domain a function from rows and answers to the verifier's scores."""
    from mgs_trl.verifiers import build_verifier

    specs = {
        "math": "math",
        "chat": {"reward_model": {"model": str(reward_model)}},
        "instruction_following": "ifeval",
    }
    return {domain: _scorer(build_verifier(spec, domain=domain)[0][0]) for domain, spec in specs.items()}


def _scorer(
    verifier: Callable[..., list[float | None]],
) -> Callable[[list[dict[str, Any]], list[str]], list[float]]:
    def score(rows: list[dict[str, Any]], answers: list[str]) -> list[float]:
        columns = {key: [row.get(key) for row in rows] for key in rows[0] if key != "prompt"}
        completions = [[{"role": "assistant", "content": answer}] for answer in answers]
        scores = verifier(prompts=[row["prompt"] for row in rows], completions=completions, **columns)
        missing = sum(value is None for value in scores)
        if missing:
            raise RuntimeError(f"the verifier of {rows[0]['domain']} left {missing} of {len(rows)} answers unscored")
        return [float(value) for value in scores if value is not None]

    return score


def success_rates(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: dict[str, list[dict[str, Any]]],
    score: dict[str, Callable[[list[dict[str, Any]], list[str]], list[float]]],
    chat_threshold: float,
    seed: int,
    length: int,
) -> tuple[dict[str, float], dict[str, float]]:
    """Per domain the share of successes and the mean score over `rows`, of answers of at most `length` tokens.

    Success is a correct answer (math), every constraint kept (instruction following), a score above
    `chat_threshold` (chat).
    """
    bars = {"math": 0.5, "instruction_following": 0.999, "chat": chat_threshold}
    rates, means = {}, {}
    for domain, domain_rows in rows.items():
        values = score[domain](domain_rows, sample(model, tokenizer, domain_rows, seed, length))
        rates[domain] = sum(value > bars[domain] for value in values) / len(values)
        means[domain] = sum(values) / len(values)
    return rates, means
