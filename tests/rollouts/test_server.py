"""A run on a real vLLM server: the policy's weights reach it, and every fault of the server has its rule (V1, V2, S2).

One server serves the file; the last tests kill it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.rollouts.errors import ServerError, StaleWeightsError
from mgs_trl.rollouts.server import Server
from mgs_trl.rollouts.settings import ServerSettings
from mgs_trl.rollouts.weight_directory import WeightDirectory
from tests.conftest import build_tiny_policy
from tests.support.rollouts import prompts
from tests.support.vllm_server import VLLMServer

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.slow

PROBES = ([5, 7, 10], [32, 33], [92, 9, 9, 102])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def policy(folder) -> str:
    # vLLM's attention wants heads of at least 32.
    sizes = {"vocab_size": 161, "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    return str(build_tiny_policy(folder / "policy", **sizes))


@pytest.fixture(scope="module")
def server(policy, folder):
    started = VLLMServer(policy, folder, folder / "weights").start()
    try:
        yield started.wait()
    finally:
        started.kill()


def reward(completion_ids, **kwargs):
    return [float(ids[0] % 7) + 0.1 * (len(ids) % 3) for ids in completion_ids]


def build(policy, server, output, callbacks=(), limits=None, **changes) -> MGSTrainer:
    fields = {
        "output_dir": str(output), "use_vllm": True, "use_cpu": True, "bf16": False, "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 3, "num_generations": 4, "max_steps": 3, "learning_rate": 0.02,
        "max_completion_length": 24, "logging_steps": 1, "report_to": [], "save_strategy": "no", "disable_tqdm": True,
        "model_init_kwargs": {"dtype": "float32"}, "weight_check_syncs": 1,
        "server": {"urls": [server.url], "weight_dir": str(server.weight_dir), "timeout": 300, **(limits or {})},
    }  # fmt: skip
    args = MGSConfig(**{**fields, **changes})
    return MGSTrainer(policy, reward, args, prompts(10), callbacks=list(callbacks))


def greedy(model, tokens: list[int], count: int = 8) -> list[int]:
    row = torch.tensor([tokens])
    with torch.no_grad():
        for _ in range(count):
            row = torch.cat([row, model(row).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return row[0, len(tokens) :].tolist()


class GreedyAgreement(TrainerCallback):
    """At the start of every step but the first: what the server would have generated with, against what it should."""

    def __init__(self, server):
        self.server, self.compared = server, []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.trainer.vllm_generation.sync_weights()
        self.trainer._last_loaded_step = state.global_step
        self.compared += [(greedy(model, tokens), self.server.greedy(tokens)) for tokens in PROBES]


def parameters(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


@pytest.fixture(scope="module")
def reference(policy, server, folder):
    """An undisturbed run: its parameters, and whether the server followed it."""
    check = GreedyAgreement(server)
    trainer = build(policy, server, folder / "reference", [check], save_strategy="steps", save_steps=2)
    check.trainer = trainer
    trainer.train()
    return trainer, check


def test_server_generates_with_the_weights_of_every_step(reference):
    trainer, check = reference
    assert len(check.compared) == 9
    assert [ours for ours, _ in check.compared] == [theirs for _, theirs in check.compared]
    assert len({tuple(ours) for ours, _ in check.compared}) > 3  # the steps do change what is generated
    logs = [log for log in trainer.state.log_history if "reward" in log]
    assert len(logs) == 3
    assert max(log["sampling/sampling_logp_difference/max"] for log in logs) < 0.001
    assert len(WeightDirectory(trainer.vllm_generation.directory.path).versions()) == 2  # older ones are gone


def test_resumed_run_continues_with_the_checkpoints_weights(policy, server, folder, reference):
    before, _ = reference
    checkpoint = folder / "reference" / "checkpoint-2"
    first = []

    class AtFirstRollout(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            first.extend(server.greedy(tokens) for tokens in PROBES)

    trainer = build(policy, server, folder / "resumed", [AtFirstRollout()])
    # Stale on purpose: what a run leaves behind that went on after the checkpoint.
    trainer.vllm_generation.servers[0].push(WeightDirectory(server.weight_dir).versions()[0], "another run")
    trainer.train(resume_from_checkpoint=str(checkpoint))
    saved = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    assert first == [greedy(saved, tokens) for tokens in PROBES]
    # The draws depend on seed and step alone: the run ends where the undisturbed one did.
    torch.testing.assert_close(parameters(trainer), parameters(before), rtol=1e-5, atol=1e-6)


def test_skipped_synchronization_stops_the_run(policy, server, tmp_path, monkeypatch):
    trainer = build(policy, server, tmp_path)
    push = Server.push
    pushes = []

    def forgets_the_second(self, weights, label):
        pushes.append(label)
        if len(pushes) != 2:
            return push(self, weights, label)
        self.version = label
        return self._call("POST", "/update_weight_version", 10, {"new_version": label})  # the label without the weights

    monkeypatch.setattr(Server, "push", forgets_the_second)
    with pytest.raises(StaleWeightsError, match="after synchronization 2"):
        trainer.train()
    assert trainer.state.global_step == 1
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").exists()


def test_policy_that_moved_without_a_synchronization_is_refused(policy, server, tmp_path):
    trainer = build(policy, server, tmp_path)
    trainer.vllm_generation.sync_weights()
    trainer.state.global_step = 1
    with pytest.raises(ServerError, match="weights of step 0, but the policy is at step 1"):
        trainer.vllm_generation.generate([[5, 6]] * 4, None, 4)


def test_damaged_weights_are_refused(policy, server, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    whole = WeightDirectory(tmp_path / "whole").publish(model.named_parameters())
    version = WeightDirectory(tmp_path / "damaged").publish(model.named_parameters())
    shard = version.path / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    client = Server(server.url, ServerSettings([server.url], timeout=20))
    client.connect()
    with pytest.raises(ServerError, match=f"could not load weights in 4 attempts: the vLLM server at {server.url}"):
        client.push(version, "damaged")
    client.push(whole, "whole")  # and it goes on
    assert [server.greedy(tokens) for tokens in PROBES] == [greedy(model, tokens) for tokens in PROBES]


def test_every_domain_is_drawn_in_its_own_way(policy, server, tmp_path):
    sampling = {"chat": {"temperature": 0.5, "max_completion_length": 5}, "math": {"temperature": 1.4, "stop": ["w1"]}}
    trainer = build(policy, server, tmp_path, sampling=sampling, max_steps=2, learning_rate=0.005)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "reward" in log]
    assert len(logs) == 2
    assert all(log["domain/chat/max_length"] <= 5 < log["domain/instruction_following/max_length"] for log in logs)
    assert all(log["sampling/sampling_logp_difference/max"] < 0.02 for log in logs)


def test_hanging_synchronization_becomes_an_error(policy, server, tmp_path):
    trainer = build(policy, server, tmp_path, limits={"sync_timeout": 2})
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(ServerError, match=f"{server.url} did not answer .* within 2 seconds"):
            trainer.train()
    finally:
        server.signal(signal.SIGCONT)
    time.sleep(1)
    server.wait(20)


def test_server_killed_while_it_generates_and_restarted(policy, server, folder, reference, monkeypatch):
    before, _ = reference
    complete, generate = Server._complete, Server.generate
    batches, requests, lost, once = [], [], [], threading.Lock()

    def counted_batch(self, bodies):
        batches.append(len(bodies))
        return generate(self, bodies)

    def killed_in_second_batch(self, body, limit):
        requests.append(body["seed"])
        # Not its first request, so that others are under way; before this one is sent, so that one is lost for certain.
        if len(batches) == 2 and len(requests) > batches[0] + 1 and once.acquire(blocking=False):
            server.kill()
            threading.Thread(target=server.start).start()
        answer = complete(self, body, limit)
        if answer is None:
            lost.append(body["seed"])
        return answer

    monkeypatch.setattr(Server, "_complete", killed_in_second_batch)
    monkeypatch.setattr(Server, "generate", counted_batch)
    trainer = build(policy, server, folder / "faulty")
    trainer.train()
    assert trainer.state.global_step == 3
    assert lost  # some requests were under way when it died
    assert len(requests) > sum(batches)
    torch.testing.assert_close(parameters(trainer), parameters(before), rtol=1e-5, atol=1e-6)
    tokens = [log["num_tokens"] for log in trainer.state.log_history if "reward" in log]
    assert tokens == [log["num_tokens"] for log in before.state.log_history if "reward" in log]


def test_server_lost_for_good_stops_every_rank_with_a_checkpoint(policy, server, tmp_path):
    root = Path(__file__).parents[2]
    script = str(root / "tests" / "support" / "served_rank.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    server.wait()  # restarted by the test before
    arguments = [policy, server.url, str(server.process.pid), str(tmp_path)]
    ran = subprocess.run([*command, *arguments], env=environment, timeout=200, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    outcomes = [torch.load(tmp_path / f"rank_{rank}.pt") for rank in range(2)]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-2", dtype=torch.float32).state_dict()
    for outcome in outcomes:
        assert outcome["step"] == 2
        assert outcome["cause"] == (
            f"ServerError: no vLLM server answered at {server.url} within 3 seconds (server.timeout); is it running?"
        )
        torch.testing.assert_close(outcome["parameters"], saved, rtol=0, atol=0)
    assert len(outcomes[0]["differences"]) == 2 and max(outcomes[0]["differences"]) < 0.001
