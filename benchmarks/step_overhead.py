"""Time of MGSTrainer's training steps over GRPOTrainer's on the same rows, generation left out.

    python benchmarks/step_overhead.py [--layers 4 --hidden 256 --completion 64] [--steps 6] [--repeats 3]
    torchrun --nproc_per_node 2 benchmarks/step_overhead.py ...

Both train on scripted completions, so they process equal rows; the trainers take turns and each figure is the median
over steps and repeats. The first step of every turn is left out.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from mgs_trl import MGSConfig, MGSTrainer

WORDS = ["<pad>", "<eos>", *[f"w{i}" for i in range(998)]]
DOMAINS = ("chat", "instruction_following", "math")


class StepTimer(TrainerCallback):
    """Seconds of each optimizer step, without those spent generating and scoring."""

    def __init__(self, trainer: Any):
        self.steps: list[float] = []
        self._apart = 0.0
        generate = trainer._generate_and_score_completions

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = self._now()
            result = generate(*args, **kwargs)
            self._apart += self._now() - started
            return result

        trainer._generate_and_score_completions = timed
        trainer.add_callback(self)

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._apart, self._started = 0.0, self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(self._now() - self._started - self._apart)


def make_policy(folder: Path, arguments: argparse.Namespace) -> str:
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<eos>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", padding_side="left")
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=arguments.hidden,
        intermediate_size=3 * arguments.hidden,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden // 32,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.float32)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters")
    model.save_pretrained(folder)
    return str(folder)


def train(kind: str, policy: str, folder: Path, arguments: argparse.Namespace) -> list[float]:
    def rollouts(prompts: list[str], trainer: Any) -> dict[str, Any]:
        draw = random.Random(len(prompts))
        completions = [[draw.randrange(2, len(WORDS)) for _ in range(arguments.completion - 1)] + [1] for _ in prompts]
        ids = [trainer.processing_class(prompt)["input_ids"] for prompt in prompts]
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None}

    def reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        return [random.Random(str(ids[:8])).random() for ids in completion_ids]

    rows = [{"prompt": f"w{i} w{d}", "domain": name} for d, name in enumerate(DOMAINS) for i in range(20)]
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 6,
        "num_generations": 4,
        "max_steps": arguments.steps + 1,
        "max_completion_length": arguments.completion,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available(),
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }
    data = Dataset.from_list(rows)
    if kind == "GRPOTrainer":
        trainer = GRPOTrainer(policy, reward, GRPOConfig(**settings), data, rollout_func=rollouts)
    else:
        trainer = MGSTrainer(policy, reward, MGSConfig(surgery=kind, **settings), data, rollout_func=rollouts)
    timer = StepTimer(trainer)
    trainer.train()
    return timer.steps[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--completion", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    kinds = ("GRPOTrainer", "none", "observe", "pcgrad")
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        policy = make_policy(Path(folder) / "policy", arguments)
        for _ in range(arguments.repeats):
            for kind in kinds:
                times[kind] += train(kind, policy, Path(folder) / kind, arguments)
    base = statistics.median(times["GRPOTrainer"])
    for kind in kinds:
        median = statistics.median(times[kind])
        name = kind if kind == "GRPOTrainer" else f"MGSTrainer, surgery={kind}"
        print(f"{name:32} {median:8.3f} s   {median / base:6.3f}")


if __name__ == "__main__":
    main()
