"""Look at rollouts before training: `python -m mgs_trl.generate RECIPE [key=value ...] [--samples N] [--prompts P]`.

Samples completions of some prompts of every domain from the recipe's policy, through the trainer's own generation and
verifiers, and shows them with their scores.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mgs_trl.blame import is_ours
from mgs_trl.recipe import load_recipe

if TYPE_CHECKING:
    from mgs_trl.trainer import MGSTrainer


@dataclass(frozen=True)
class Sample:
    """One completion.

    Attributes:
        prompt: the text that the policy read, special tokens included.
        tokens: length of the completion.
        reward: weighted sum of the scores; None where no verifier scored it.
        scores: by verifier, without those that did not score it.
        row: the dataset's, as the verifiers had it.
    """

    domain: str
    prompt: str
    completion: str
    tokens: int
    reward: float | None
    scores: dict[str, float]
    row: dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's error."""
    arguments = _parse(argv)
    try:
        samples = generate(arguments)
    except (ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_ours(error):  # ours is a verifier that raised
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("".join(json_line(sample) for sample in samples))
    console = Console()
    console.print(completions_table(samples))
    console.print(summary_table(samples))
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mgs_trl.generate", description="Sample from a recipe's policy.")
    parser.add_argument("recipe", help="a .yaml file or the name of a shipped recipe")
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="hydra overrides of the recipe")
    parser.add_argument("--samples", type=int, default=4, help="completions per prompt (default 4)")
    parser.add_argument("--prompts", type=int, default=2, help="prompts per domain (default 2)")
    parser.add_argument("--heldout", action="store_true", help="prompts of eval_dataset instead of dataset")
    parser.add_argument("--out", type=Path, help="write the completions to this JSONL file")
    return parser.parse_intermixed_args(argv)


def generate(arguments: argparse.Namespace) -> list[Sample]:
    """Completions of every domain, prompt by prompt.

    Raises:
        ValueError: anything wrong with the recipe or the arguments, or more than one process.
    """
    for name in ("samples", "prompts"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} is {getattr(arguments, name)}, but it must be at least 1.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("mgs_trl.generate runs in one process; start it with python, not with accelerate launch.")
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    if arguments.heldout and not any(domain.eval_dataset for domain in recipe.domains.values()):
        raise ValueError("--heldout was given, but no domain of the recipe has an eval_dataset.")

    from mgs_trl.build import build_trainer

    # Given several, transformers would split the policy between them.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    parallel = recipe.trainer.get("vllm_tensor_parallel_size") or 1
    if parallel > 1:
        print(f"vllm_tensor_parallel_size is {parallel} in the recipe; here it is 1, for one process.", file=sys.stderr)
    changes: dict[str, Any] = {"report_to": [], "vllm_tensor_parallel_size": 1}
    changes["mask_truncated_completions"] = False  # their masks are empty, and here they are to be seen
    trainer = build_trainer(recipe, **changes)
    trainer.num_generations_eval = arguments.samples  # of our own batches, not of the recipe's evaluation
    rows = _draw(trainer, arguments.heldout, arguments.prompts)
    per_call = max(1, trainer.args.per_device_eval_batch_size // arguments.samples)
    samples: list[Sample] = []
    for first in range(0, len(rows), per_call):
        batch = [row for row in rows[first : first + per_call] for _ in range(arguments.samples)]
        samples += _sample(trainer, batch)
    return samples


def _draw(trainer: "MGSTrainer", heldout: bool, count: int) -> list[dict[str, Any]]:
    """`count` prompts of every domain, drawn with the run's seed; all of a domain that has fewer."""
    dataset: Any = trainer.eval_dataset if heldout else trainer.train_dataset
    domains = dataset[trainer.args.domain_column]
    rows = []
    for name in sorted(set(domains)):
        mine = [i for i, domain in enumerate(domains) if domain == name]
        chosen = random.Random(trainer.args.seed).sample(mine, min(count, len(mine)))
        rows += [dataset[i] for i in sorted(chosen)]
    return rows


def _sample(trainer: "MGSTrainer", rows: list[dict[str, Any]]) -> list[Sample]:
    import torch

    trainer.model.eval()
    with torch.no_grad():
        output = trainer._generate_and_score_completions(rows)
    tokenizer: Any = trainer.processing_class
    assert trainer._rewards_per_func is not None
    samples = []
    for i, row in enumerate(rows):
        read = output["prompt_ids"][i][output["prompt_mask"][i].bool()]
        written = output["completion_ids"][i][output["completion_mask"][i].bool()]
        values = dict(zip(trainer.reward_func_names, trainer._rewards_per_func[i].tolist(), strict=True))
        weighted = trainer._rewards_per_func[i] * trainer.reward_weights.to(trainer._rewards_per_func)
        scores = {name: value for name, value in values.items() if value == value}
        samples.append(
            Sample(
                row[trainer.args.domain_column],
                tokenizer.decode(read),
                tokenizer.decode(written, skip_special_tokens=True),
                len(written),
                weighted.nansum().item() if scores else None,
                scores,
                row,
            )
        )
    return samples


def json_line(sample: Sample) -> str:
    """A line that `mgs_trl.score` takes: all that the verifiers read (`prompt` may be messages), and the sample's own
    fields, of which `prompt_text` is what the policy read."""
    columns = {name: value for name, value in sample.row.items() if value is not None}  # None: another domain's column
    own = {name: value for name, value in vars(sample).items() if name not in ("prompt", "row")}
    # A text in place of what JSON does not have, such as a date.
    return json.dumps({**columns, **own, "prompt_text": sample.prompt}, default=str) + "\n"


def completions_table(samples: Sequence[Sample]) -> Table:
    """Every completion, under its prompt."""
    table = Table("domain", "prompt and completions", "tokens", "reward", title="Completions", show_lines=False)
    before = None
    for sample in samples:
        if before is None or (sample.domain, sample.prompt) != (before.domain, before.prompt):
            table.add_section()
            table.add_row(sample.domain, Text(sample.prompt.strip(), style="dim"), "", "")
        table.add_row("", Text(sample.completion.strip() or "(empty)"), str(sample.tokens), _number(sample.reward))
        before = sample
    return table


def summary_table(samples: Sequence[Sample]) -> Table:
    """Per domain: how many completions, their length, and the mean of every verifier."""
    table = Table("domain", "completions", "mean tokens", "score", "scored", "mean", "min", "max", title="Rewards")
    for domain in sorted({sample.domain for sample in samples}):
        mine = [sample for sample in samples if sample.domain == domain]
        lead = [domain, str(len(mine)), f"{sum(sample.tokens for sample in mine) / len(mine):.1f}"]
        columns = {name: [s.scores[name] for s in mine if name in s.scores] for s in mine for name in s.scores}
        columns["reward"] = [s.reward for s in mine if s.reward is not None]
        for name, values in columns.items():
            numbers = [_number(f(values)) for f in (_mean, min, max)] if values else ["-"] * 3
            table.add_row(*lead, name, str(len(values)), *numbers)
            lead = ["", "", ""]
    return table


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
