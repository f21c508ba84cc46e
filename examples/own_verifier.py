"""A verifier of your own: any function that TRL accepts as a reward function.

It gets what TRL passes (`prompts`, `completions`, and every dataset column as a list) and returns a score, or None,
per row. In a recipe it is named `package.module:function`; it scores its own domain's rows only, in a process of its
own that is stopped when a row takes too long.

    domains:
      poetry:
        dataset: poems.jsonl                     # rows such as {"prompt": "Rhyme with moon.", "ending": "oon"}
        verifier:
          - own_verifier:rhymes
          - {own_verifier:short: {time_limit: 2}, weight: 0.2}

Run it with `python examples/own_verifier.py`.
"""

import sys
from pathlib import Path

from mgs_trl.verifiers import build_verifier


def text_of(completion):
    """The text of a completion, which is a list of messages where prompts are conversations."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def rhymes(completions, ending, **columns):
    """1.0 for every line that ends as the dataset's column `ending` asks, averaged over the lines."""
    scores = []
    for completion, wanted in zip(completions, ending, strict=True):
        lines = [line.strip(" .,!?") for line in text_of(completion).splitlines() if line.strip()]
        scores.append(sum(line.endswith(wanted) for line in lines) / len(lines) if lines else 0.0)
    return scores


def short(completions, **columns):
    """1.0 up to 40 words, then falling to 0.0 at 80."""
    return [min(1.0, max(0.0, 2 - len(text_of(completion).split()) / 40)) for completion in completions]


def main():
    sys.path.insert(0, str(Path(__file__).parent))  # so that `own_verifier:rhymes` can be imported
    spec = ["own_verifier:rhymes", {"own_verifier:short": {"time_limit": 2}, "weight": 0.2}]
    batch = {
        "prompts": ["Rhyme with moon.", "Rhyme with moon.", "What is 1 + 1?"],
        "completions": ["High above the moon,\nup in a balloon.", "I see the moon\nand the stars.", "2"],
        "ending": ["oon", "oon", None],
        "domain": ["poetry", "poetry", "math"],  # the last row is another domain's: it is not scored
    }
    for verifier, weight in build_verifier(spec, domain="poetry"):
        print(f"{verifier.__name__} (weight {weight}):", verifier(**batch))


if __name__ == "__main__":
    main()
