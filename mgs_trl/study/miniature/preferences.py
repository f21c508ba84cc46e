"""The reward model of the chat domain: a small classifier trained by TRL's RewardTrainer on generated preferences."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mgs_trl.study.miniature import conversation, instructions
from mgs_trl.study.miniature.policy import quiet_arguments, run, special_ids

if TYPE_CHECKING:
    from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast

MARGIN = 0.5  # difference in hidden quality below which a pair would be a coin toss


def candidate(row: dict[str, Any], rng: random.Random) -> str:
    """Any answer that a policy might give to a chat row: a demonstration, a spoilt one, or another domain's answer."""
    text = conversation.demonstration(row, rng)
    words = text.split()
    kind = rng.random()
    if kind < 0.45:
        return text
    if kind < 0.55:
        return conversation.demonstration(row, rng, clauses=rng.randint(4, 8))
    if kind < 0.65:
        return " ".join(rng.sample(words, len(words)))
    if kind < 0.75:
        start = rng.randrange(len(words))
        return " ".join(words[:start] + words[start : start + rng.choice((1, 2, 4, 7))] * rng.choice((2, 3, 4)))
    if kind < 0.87:
        words = conversation.demonstration(row, rng, clauses=rng.randint(2, 9)).split()
        return " ".join(words[: rng.randint(1, min(len(words), 40))])
    if kind < 0.97:
        return instructions.demonstration(instructions.draw_row(rng), rng)
    return f"\\boxed{{{rng.randint(3, 36)}}}"


def pairs(rows: list[dict[str, Any]], count: int, rng: random.Random) -> list[dict[str, Any]]:
    """Draw `count` rows of conversational `prompt`, `chosen` and `rejected`, by hidden quality."""
    drawn: list[dict[str, Any]] = []
    while len(drawn) < count:
        row = rng.choice(rows)
        ranked = sorted((conversation.quality(row, text), text) for text in (candidate(row, rng), candidate(row, rng)))
        (low, worse), (high, better) = ranked
        if high - low < MARGIN:
            continue
        drawn.append({"prompt": row["prompt"], "chosen": _answer(better), "rejected": _answer(worse)})
    return drawn


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def train_reward_model(
    tokenizer: PreTrainedTokenizerFast,
    preferences: list[dict[str, Any]],
    *,
    seed: int,
    directory: str,
    on_step: Callable[[], Any],
) -> LlamaForSequenceClassification:
    """Train a fresh sequence classifier with one logit on `preferences`, one epoch in batches of 32 pairs."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForSequenceClassification, set_seed
    from trl import RewardConfig, RewardTrainer

    set_seed(seed)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=192,
            initializer_range=0.08,
            num_hidden_layers=2,
            num_attention_heads=2,
            head_dim=32,
            max_position_embeddings=512,
            **{"num_labels": 1, **special_ids(tokenizer)},
        )
    )
    arguments = RewardConfig(
        output_dir=directory,
        num_train_epochs=1,
        per_device_train_batch_size=REWARD_BATCH,
        learning_rate=4e-3,
        lr_scheduler_type="cosine",
        warmup_steps=10,
        weight_decay=0.0,
        max_length=512,
        center_rewards_coefficient=0.01,
        seed=seed,
        **quiet_arguments(),
    )
    run(
        RewardTrainer(model, args=arguments, train_dataset=Dataset.from_list(preferences), processing_class=tokenizer),
        on_step,
    )
    return model.eval()


REWARD_BATCH = 32


def pair_accuracy(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    preferences: list[dict[str, Any]],
) -> float:
    """The share of `preferences` whose chosen answer gets the higher logit."""
    chosen = logits(model, tokenizer, [pair["prompt"] + pair["chosen"] for pair in preferences])
    rejected = logits(model, tokenizer, [pair["prompt"] + pair["rejected"] for pair in preferences])
    return sum(c > r for c, r in zip(chosen, rejected, strict=True)) / len(preferences)


def logits(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    conversations: list[list[dict[str, str]]],
) -> list[float]:
    """The reward model's logit of each conversation."""
    import torch

    texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
    inputs = tokenizer(texts, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt")  # type: ignore[arg-type]
    with torch.no_grad():
        return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0].tolist()
