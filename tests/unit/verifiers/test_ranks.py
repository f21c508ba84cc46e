"""Verifiers on several ranks: one reward model per node, and no rank left waiting (demand.md R3)."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

SHARED = """
import json, os, sys
import torch, torch.distributed as dist
sys.path[:0] = [{here!r}, {root!r}]
import test_reward_model as parts
from mgs_trl.verifiers import RewardModelVerifier, VerifierError
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = parts.LlamaForSequenceClassification(parts.config()).eval()
calls = []
model.register_forward_pre_hook(lambda *args: calls.append(1))
verifier = RewardModelVerifier("chat", model=model, tokenizer=parts.tokenizer(), share="node")
prompts = [["a", "b c"], [], ["d e f", "g", "h"]][rank]
completions = [["x", "y"], [], ["z", "w", "v"]][rank]
domains = [["chat", "math"], [], ["chat"] * 3][rank]
scores = verifier(prompts, completions, domain=domains)
failure = None
verifier.model = None if rank == 0 else verifier.model
try:
    verifier(prompts, completions, domain=domains)
except VerifierError as error:
    failure = str(error)
with open({results!r} + f"/{{rank}}.json", "w") as file:  # lines of several ranks can meet on one line of stdout
    json.dump([rank, scores, len(calls), failure], file)
dist.destroy_process_group()
"""

RAISING = """
import sys
import torch, torch.distributed as dist
sys.path[:0] = [{here!r}, {root!r}]
from mgs_trl.verifiers import build_verifier
dist.init_process_group("gloo")
((verifier, _),) = build_verifier("misbehaving:moody_reward", "d")
completions = ["fine", "raise"] if dist.get_rank() == 1 else ["fine", "fine"]
verifier(prompts=["q", "q"], completions=completions, domain=["d", "d"])
dist.all_reduce(torch.ones(1))
print("RESULT passed", flush=True)
"""


def launch(script: str, ranks: int, path: Path) -> subprocess.CompletedProcess:
    path.write_text(script.format(here=str(HERE), root=str(ROOT), results=str(path.parent)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", str(path)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=180, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
def test_one_reward_model_per_node_scores_the_rows_of_all_its_ranks(tmp_path):
    import test_reward_model as parts
    import torch

    done = launch(SHARED, 3, tmp_path / "shared.py")
    results = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("*.json"))]
    torch.manual_seed(0)
    model = parts.LlamaForSequenceClassification(parts.config()).eval()

    def alone(prompt, completion):
        return pytest.approx(parts.reference(model, parts.chat(prompt, completion)), rel=1e-5)

    assert [scores for _, scores, *_ in results] == [
        [alone("a", "x"), None],
        [],
        [alone("d e f", "z"), alone("g", "w"), alone("h", "v")],
    ], done.stderr[-2000:]
    assert [calls > 0 for _, _, calls, _ in results] == [True, False, False]
    assert all("reward model on rank 0 failed" in failure for *_, failure in results)


@pytest.mark.slow
def test_r3_a_verifier_raising_on_one_rank_stops_all_within_a_minute(tmp_path):
    start = time.monotonic()
    done = launch(RAISING, 2, tmp_path / "raising.py")
    assert time.monotonic() - start < 60
    assert done.returncode != 0
    assert "RESULT" not in done.stdout
    for part in ("d/moody_reward", "domain 'd'", "sample 1", "ZeroDivisionError"):
        assert part in done.stderr
