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

FAILING = """
import json, sys
import torch, torch.distributed as dist
sys.path[:0] = [{here!r}, {root!r}]
import test_reward_model as parts
from accelerate import Accelerator
from accelerate.utils import gather
from mgs_trl.ranks.agreement import rewards_of_all_ranks
from mgs_trl.verifiers import RewardModelVerifier, VerifierError, build_verifier
accelerator = Accelerator(cpu=True)
rank, case = accelerator.process_index, {case!r}
torch.manual_seed(0)
model = parts.LlamaForSequenceClassification(parts.config()).eval()
shared = RewardModelVerifier("chat", model=model, tokenizer=parts.tokenizer(), share="node")
((moody, _),) = build_verifier({{"misbehaving:moody_reward": {{"isolated": False}}}}, "chat")
failing = rank == {rank}

def out_of_memory(*_):
    raise torch.OutOfMemoryError("no room")

def chat_template(*_, **__):
    raise KeyError("role")

if case == "loaded before":
    shared(["a"], ["x"], domain=["chat"])
if failing and case == "load":
    shared._loaded_tokenizer = out_of_memory
if failing and case == "template":
    parts.PreTrainedTokenizerFast.apply_chat_template = chat_template
if failing and case == "score":
    shared.mapped = lambda raw: float("nan")
before = failing and case in ("before", "loaded before")
verifiers = [moody, shared, moody, shared]

def score():
    completions = ["raise" if before else "x", "y"]
    rows = [verifier(prompts=["a", "b"], completions=completions, domain=["chat"] * 2) for verifier in verifiers]
    return gather(torch.tensor(rows, dtype=torch.float32).T)

try:
    rewards_of_all_ranks(accelerator, score, 2, len(verifiers))
    said = "nothing"
except Exception as error:
    said = f"{{type(error).__name__}}: {{error}}"
with open({results!r} + f"/{{rank}}.json", "w") as file:
    json.dump(said, file)
dist.destroy_process_group()
"""


def launch(script: str, ranks: int, path: Path, **values) -> subprocess.CompletedProcess:
    path.write_text(script.format(here=str(HERE), root=str(ROOT), results=str(path.parent), **values))
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "rank", "words"),
    [
        ("before", 0, ["chat/moody_reward", "ZeroDivisionError"]),
        ("before", 1, ["chat/moody_reward", "ZeroDivisionError"]),
        ("loaded before", 1, ["chat/moody_reward", "ZeroDivisionError"]),
        ("load", 0, ["OutOfMemoryError: no room"]),
        ("template", 1, ["KeyError"]),
        ("score", 1, ["chat/reward_model", "sample 0", "nan"]),
    ],
)
def test_no_rank_waits_for_one_that_failed_before_a_shared_reward_model(tmp_path, case, rank, words):
    done = launch(FAILING, 2, tmp_path / "failing.py", case=case, rank=rank)
    said = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("*.json"))]
    assert len(said) == 2, done.stderr[-2000:]
    for words_of_rank in said:
        assert all(word in words_of_rank for word in words), said
    assert f"scoring failed on rank {rank}" in done.stderr
    assert f"on rank {rank}" in said[1 - rank]
