"""An ordinary TRL script for two tasks, and the three lines that change.

python examples/drop_in.py --model Qwen/Qwen2.5-0.5B-Instruct
accelerate launch examples/drop_in.py --model Qwen/Qwen2.5-0.5B-Instruct
"""

import argparse
import re

from datasets import Dataset

from mgs_trl import MGSConfig, MGSTrainer  # 1. was: from trl import GRPOConfig, GRPOTrainer


def sums(count: int) -> list[dict]:
    return [{"prompt": f"{a} + {a + 7} =", "answer": str(2 * a + 7)} for a in range(count)]


def requests(count: int) -> list[dict]:
    return [{"prompt": f"Name {n % 5 + 2} animals, without commas.", "answer": None} for n in range(count)]


def correct(completions, answer, **kwargs):  # None where a reward does not apply
    return [
        None if gold is None else float(re.findall(r"\d+", text)[-1:] == [gold])
        for text, gold in zip(completions, answer, strict=True)
    ]


def no_commas(completions, answer, **kwargs):
    return [float("," not in text) if gold is None else None for text, gold in zip(completions, answer, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-steps", type=int, default=100)
    parser.add_argument("--output-dir", default="outputs/drop_in")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    math = Dataset.from_list([{**row, "domain": "math"} for row in sums(64)])  # 2. a domain column
    chat = [{**row, "domain": "instruction_following"} for row in requests(64)]
    config = MGSConfig(  # 3. was: GRPOConfig and GRPOTrainer
        output_dir=options.output_dir,
        max_steps=options.max_steps,
        bf16=options.bf16,
        num_generations=4,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        max_completion_length=32,
        logging_steps=1,
    )
    data = Dataset.from_list([*math, *chat])
    MGSTrainer(model=options.model, reward_funcs=[correct, no_commas], args=config, train_dataset=data).train()


if __name__ == "__main__":
    main()
