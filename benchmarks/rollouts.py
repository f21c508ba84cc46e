"""Tokens per second of one generation call for all domains, of one call per domain, and of transformers' generation.

    python benchmarks/rollouts.py [--layers 6 --hidden 384] [--rows 16] [--limits 16 64 256] [--repeats 3]

The same prompts, the same limits, the trainer's own generation; contenders take turns and each figure is the median.
The policy has random weights and hardly ever ends by itself, so a domain's completions are as long as its limit.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mgs_trl import MGSConfig, MGSTrainer

WORDS = ["<pad>", "<eos>", *[f"w{i}" for i in range(1998)]]
DOMAINS = ("short", "middle", "long")


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
        num_attention_heads=arguments.hidden // 64,
        max_position_embeddings=1024,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters, {arguments.rows} rows a domain")
    model.save_pretrained(folder)
    return str(folder)


def make_trainer(policy: str, folder: Path, vllm: bool, arguments: argparse.Namespace) -> MGSTrainer:
    rows = [{"prompt": f"w{i} w{i + 7} w{i + d}", "domain": name} for d, name in enumerate(DOMAINS) for i in range(50)]
    limits = {name: {"max_completion_length": limit} for name, limit in zip(DOMAINS, arguments.limits, strict=True)}
    args = MGSConfig(
        output_dir=str(folder),
        per_device_train_batch_size=3 * arguments.rows,
        num_generations=arguments.rows,
        use_vllm=vllm,
        vllm_mode="colocate",
        vllm_max_model_length=1024,
        max_completion_length=max(arguments.limits),
        sampling=limits,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        report_to=[],
        model_init_kwargs={"dtype": "bfloat16" if torch.cuda.is_available() else "float32"},
    )
    return MGSTrainer(policy, lambda completion_ids, **_: [0.0] * len(completion_ids), args, Dataset.from_list(rows))


def draw(trainer: Any, domains: list[str], rows: int) -> tuple[float, int]:
    """Seconds and tokens of one call."""
    trainer.model.train()
    trainer._sampling.rows = [trainer._sampling.of(name) for name in domains for _ in range(rows)]
    prompts = [[2 + i, 9 + i, 5 + d] for d in range(len(domains)) for i in range(rows)]
    started = time.perf_counter()
    completions, _ = trainer._generate_single_turn(prompts, None, {}, 1)
    return time.perf_counter() - started, sum(map(len, completions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--limits", type=int, nargs=3, default=[16, 64, 256])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy = make_policy(folder / "policy", arguments)
        trainers = {
            kind: make_trainer(policy, folder / kind, kind == "vLLM", arguments) for kind in ("vLLM", "transformers")
        }
        contenders = {
            "vLLM, one call for all": ("vLLM", [list(DOMAINS)]),
            "vLLM, one call per domain": ("vLLM", [[name] for name in DOMAINS]),
            "vLLM, the long domain alone": ("vLLM", [["long"]]),
            "transformers": ("transformers", [list(DOMAINS)]),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        tokens: dict[str, int] = {}
        for repeat in range(arguments.repeats + 1):
            for name, (kind, calls) in contenders.items():
                found = [draw(trainers[kind], domains, arguments.rows) for domains in calls]
                tokens[name] = sum(count for _, count in found)
                if repeat:  # the first call warms up, and brings the weights
                    seconds[name].append(sum(spent for spent, _ in found))
    base = statistics.median(seconds["vLLM, one call for all"])
    for name, spent in seconds.items():
        median = statistics.median(spent)
        print(
            f"{name:28} {median:7.3f} s  {median / base:6.2f}  {tokens[name]:7} tokens  {tokens[name] / median:8.0f} /s"
        )


if __name__ == "__main__":
    main()
