"""The policy: a Llama of about a million parameters (half of it when small), warmed up by TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BATCH = 64  # demonstrations per step
MICRO_BATCH = 32
CONTEXT = 512  # positions; prompts of the miniature have at most 32 tokens, answers at most 48


def new_policy(tokenizer: PreTrainedTokenizerFast, seed: int, hidden: int, layers: int) -> LlamaForCausalLM:
    """A freshly initialised fp32 policy for `tokenizer`, its generation config set to sample and to stop at eos.

    Heads have 32 dimensions, the smallest that vLLM's CPU attention accepts.
    """
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            initializer_range=0.04,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 32,
            num_key_value_heads=hidden // 32,
            head_dim=32,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=False,
            **special_ids(tokenizer),
        )
    )
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, **special_ids(tokenizer))
    return model


def special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The config fields that name the tokenizer's special tokens."""
    return {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def warm_up(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    demonstrations: list[dict[str, Any]],
    *,
    steps: int,
    learning_rate: float,
    directory: str,
    on_step: Callable[[], Any],
) -> None:
    """Train `model` in place for `steps` steps of 64 demonstrations (BATCH) with TRL's SFTTrainer.

    `demonstrations` are rows of conversational `prompt` and `completion`; only completions carry loss.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        output_dir=directory,
        max_steps=steps,
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=BATCH // MICRO_BATCH,
        train_sampling_strategy="sequential",
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(30, steps // 4),
        adam_beta2=0.98,
        weight_decay=0.0,
        max_length=CONTEXT,
        loss_type="nll",
        **quiet_arguments(),
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(_sorted_within_steps(demonstrations)),
        processing_class=tokenizer,
    )
    run(trainer, on_step)


def _sorted_within_steps(demonstrations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The demonstrations of each step in order of length, so that its micro-batches hold little padding."""

    def length(row: dict[str, Any]) -> int:
        return len(row["prompt"][0]["content"]) + len(row["completion"][0]["content"])

    steps = (demonstrations[start : start + BATCH] for start in range(0, len(demonstrations), BATCH))
    return [row for step in steps for row in sorted(step, key=length)]


def quiet_arguments() -> dict[str, Any]:
    """Trainer arguments of every training of the miniature: fp32 on the CPU, nothing saved, reported or printed."""
    return {
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "optim": "adamw_torch",
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def run(trainer: Any, on_step: Callable[[], Any]) -> None:
    """Run a transformers Trainer without its printing, calling `on_step` after every optimizer step."""
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    class Tick(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            on_step()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Tick())
    trainer.train()
