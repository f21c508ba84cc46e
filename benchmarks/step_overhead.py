"""Time of MGSTrainer's training steps over GRPOTrainer's on the same rows and engine, generation and scoring left out.

    python benchmarks/step_overhead.py [--engine zero2] [--layers 4 --hidden 256] [--completion 64] [--steps 6]
    torchrun --nproc_per_node 4 benchmarks/step_overhead.py --engine fsdp2 ...

Every engine but `single` has two ranks, which the first form starts itself. All contenders train on scripted
completions of one length, so they process equally many tokens; GRPOTrainer is TRL's own on the same engine. They take
turns in one process, another one first in each round, and the figures are rank 0's median and minimum over steps and
rounds, each also over GRPOTrainer's; the first step of every turn is left out. Without a GPU, DeepSpeed and FSDP2 run
on gloo.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from mgs_trl import MGSConfig, MGSTrainer

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests know how to run each engine without a GPU
from tests.distributed.engines import EXPECTED, actual_engine, engine_settings, let_fsdp_run_on_cpu

ENGINES = ("single", "ddp", "zero1", "zero2", "zero3", "fsdp2")
CONTENDERS = ("GRPOTrainer", "none", "observe", "pcgrad")
RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
WORDS = ["<pad>", "<eos>", *[f"w{i}" for i in range(998)]]
DOMAINS = ("chat", "instruction_following", "math")


class StepTimer(TrainerCallback):
    """Seconds of each optimizer step, without those spent generating and scoring; and what was trained in it."""

    def __init__(self, trainer: Any):
        self.steps: list[float] = []
        self.passes: list[int] = []
        self.engines: set[str] = set()
        self._apart, self._passes = 0.0, 0
        generate, compute_loss = trainer._generate_and_score_completions, trainer.compute_loss

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = self._now()
            result = generate(*args, **kwargs)
            if dist.is_initialized():
                dist.barrier()  # a rank that waits for another's scores is not training
            self._apart += self._now() - started
            return result

        def counted(model: Any, *args: Any, **kwargs: Any) -> Any:
            self._passes += 1
            self.engines.add(actual_engine(model))
            return compute_loss(model, *args, **kwargs)

        trainer._generate_and_score_completions, trainer.compute_loss = timed, counted
        trainer.add_callback(self)

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._apart, self._passes, self._started = 0.0, 0, self._now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(self._now() - self._started - self._apart)
        self.passes.append(self._passes)


def make_policy(folder: Path, arguments: argparse.Namespace) -> None:
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
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"{millions:.1f} million parameters, {arguments.completion} tokens, {arguments.engine}, "
          f"{WORLD} rank(s), {torch.get_num_threads()} thread(s) each")  # fmt: skip
    model.save_pretrained(folder)


def train(kind: str, policy: str, folder: Path, arguments: argparse.Namespace) -> StepTimer:
    def rollouts(prompts: list[str], trainer: Any) -> dict[str, Any]:
        draw = random.Random(len(prompts))
        completions = [[draw.randrange(2, len(WORDS)) for _ in range(arguments.completion - 1)] + [1] for _ in prompts]
        ids = [trainer.processing_class(prompt)["input_ids"] for prompt in prompts]
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None}

    def reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        return [random.Random(str(ids[:8])).random() for ids in completion_ids]

    rows = [{"prompt": f"w{i} w{d}", "domain": name} for d, name in enumerate(DOMAINS) for i in range(20)]
    folder.mkdir(exist_ok=True)
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 6,
        "num_generations": 4,
        "max_steps": arguments.steps + 1,
        "max_completion_length": arguments.completion,
        "bf16": torch.cuda.is_available(),
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        **engine_settings(arguments.engine, folder),
    }
    data = Dataset.from_list(rows)
    if kind == "GRPOTrainer":
        trainer = GRPOTrainer(policy, reward, GRPOConfig(**settings), data, rollout_func=rollouts)
    else:
        trainer = MGSTrainer(policy, reward, MGSConfig(surgery=kind, **settings), data, rollout_func=rollouts)
    timer = StepTimer(trainer)
    trainer.train()
    expected = EXPECTED.get(arguments.engine, "LlamaForCausalLM")
    assert timer.engines == {expected}, f"{arguments.engine}: {kind} trained a {timer.engines}, not a {expected}"
    trainer.accelerator.free_memory()
    return timer


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    policy = folder / "policy"
    if RANK == 0:
        make_policy(policy, arguments)
    if WORLD > 1:
        dist.barrier()
    contenders = [CONTENDERS[0], *arguments.against]
    times: dict[str, list[float]] = {kind: [] for kind in contenders}
    passes: dict[str, set[int]] = {kind: set() for kind in contenders}
    for repeat in range(arguments.repeats):
        first = repeat % len(contenders)
        for kind in contenders[first:] + contenders[:first]:
            timer = train(kind, str(policy), folder / kind, arguments)
            times[kind] += timer.steps[1:]
            passes[kind] |= set(timer.passes)
    base = times[CONTENDERS[0]]
    for kind in contenders if RANK == 0 else ():
        median, least = statistics.median(times[kind]), min(times[kind])
        name = kind if kind == CONTENDERS[0] else f"MGSTrainer, surgery={kind}"
        counts = " or ".join(str(count) for count in sorted(passes[kind]))
        figures = f"median {median:8.3f} s {median / statistics.median(base):6.3f}   minimum {least:8.3f} s"
        print(f"{name:32} {figures} {least / min(base):6.3f}   {counts} forward passes a step", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=ENGINES, default="single")
    parser.add_argument("--against", nargs="+", choices=CONTENDERS[1:], default=CONTENDERS[1:])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--completion", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
        let_fsdp_run_on_cpu()
    if arguments.engine != "single" and "RANK" not in os.environ:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *sys.argv]
        os.execv(sys.executable, [sys.executable, *start])
    if arguments.engine == "single" and WORLD > 1:
        parser.error("--engine single is one process; name the engine that torchrun's ranks train with")
    if WORLD > 1:  # before DeepSpeed asks for the number of ranks, which it does when it reads its configuration
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    with tempfile.TemporaryDirectory() as folder:
        shared = [folder]
        if WORLD > 1:
            dist.broadcast_object_list(shared)
        compare(arguments, Path(shared[0]))
        if WORLD > 1:
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
