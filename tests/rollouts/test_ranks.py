"""Two ranks whose rows have different settings, or prompts of different kinds: neither waits for the other."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_ranks_with_other_domains_and_other_prompts_draw_and_score_their_own(tiny_policy, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.rollouts.test_ranks", tiny_policy, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.glob("done-*")) == ["done-0", "done-1"]


def main(policy: str, folder: str) -> None:
    """One rank: chat on the first, math and a domain without settings of its own on the second."""
    import torch
    from trl import GRPOTrainer

    from tests.support.rollouts import prompts
    from tests.unit.trainer.test_sampling import assert_scored_at, build

    sampling = {
        "chat": {"temperature": 0.7, "max_completion_length": 3},
        "math": {"temperature": 1.6, "max_completion_length": 5},
    }
    data = prompts(10)
    trainer = build(policy, folder, data=data, sampling=sampling, beta=0.1, temperature=1.2, num_generations_eval=4)
    rank = trainer.accelerator.process_index
    assert trainer.accelerator.num_processes == 2
    trainer.model.eval()
    chosen = [[data[0], data[1]], [data[20], data[10]]][rank]
    found = trainer._generate_and_score_completions([row for row in chosen for _ in range(4)])
    temperatures, limits = [([0.7, 0.7], [3, 3]), ([1.6, 1.2], [5, 12])][rank]
    assert_scored_at([value for value in temperatures for _ in range(4)], policy, found)
    lengths = found["completion_mask"].sum(1).view(2, 4).max(dim=1).values.tolist()
    assert all(length <= limit for length, limit in zip(lengths, limits, strict=True)), lengths

    images = [None, [None, ["an image"]]][rank]
    GRPOTrainer._tokenize_prompts = lambda *_: ([list(range(300)), [3]], images, {})
    ids, *_ = trainer._tokenize_prompts(["long", "short"])
    assert len(ids[0]) == [trainer.model.config.max_position_embeddings - 12, 300][rank]
    assert trainer._metrics["eval"]["rollouts/truncated_prompts"][-1] == 0.25
    torch.distributed.barrier()
    (Path(folder) / f"done-{rank}").touch()


if __name__ == "__main__":
    main(*sys.argv[1:])
