"""What is asked of a server, seen from one that keeps the requests: its own limits, and draws that can be repeated."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import PartialState
from datasets import Dataset
from huggingface_hub.utils import filter_repo_objects

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.rollouts.errors import ServerError
from mgs_trl.rollouts.served import served
from mgs_trl.rollouts.server import Server
from mgs_trl.rollouts.settings import ServerSettings
from tests.support.rollouts import DOMAINS, prompts, reward
from tests.support.scripted_server import scripted_server

pytest.importorskip("vllm", reason="vLLM is not installed")


def config(folder, *servers, **changes) -> MGSConfig:
    fields = {
        "output_dir": str(folder), "use_vllm": True, "use_cpu": True, "bf16": False, "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 3, "num_generations": 4, "max_steps": 2, "max_completion_length": 8,
        "logging_steps": 1, "report_to": [], "save_strategy": "no", "disable_tqdm": True, "weight_check_syncs": 0,
        "server": {"urls": [server.url for server in servers], "timeout": 5},
    }  # fmt: skip
    return MGSConfig(**{**fields, **changes})


def long_prompts(tokens: int) -> Dataset:
    """Two of every domain, of which the second has `tokens` different tokens and the first has three."""
    words = [f"w{word}" for word in range(tokens)]
    rows = [{"prompt": " ".join(part), "domain": name} for name in DOMAINS for part in (words[:3], words)]
    return Dataset.from_list(rows)


def test_prompts_are_cut_to_the_smallest_servers_context(tiny_policy, tmp_path):
    with scripted_server(60) as wide, scripted_server(24) as narrow:
        trainer = MGSTrainer(tiny_policy, reward, config(tmp_path, wide, narrow), long_prompts(40))
        trainer.train()
        asked = wide.requests + narrow.requests
    whole = trainer.processing_class(long_prompts(40)["prompt"][1])["input_ids"]
    assert {len(body["prompt"]) for body in asked} == {3, 16}
    assert all(body["prompt"] == whole[-16:] for body in asked if len(body["prompt"]) > 3)
    assert all(body["max_tokens"] == 8 for body in asked)
    shares = [log["rollouts/truncated_prompts"] for log in trainer.state.log_history if "reward" in log]
    assert shares == [0.5, 0.5]


def test_a_completion_longer_than_the_context_ends_there(tiny_policy, tmp_path):
    with scripted_server(10) as server:
        trainer = MGSTrainer(tiny_policy, reward, config(tmp_path, server, max_completion_length=32), long_prompts(20))
        trainer.train()
    assert {(len(body["prompt"]), body["max_tokens"]) for body in server.requests} == {(3, 7), (9, 1)}


@pytest.mark.parametrize("urls", [1, 2])
def test_a_step_is_trained_on_the_same_draws_whether_it_was_evaluated_or_not(tiny_policy, tmp_path, urls):
    """A run that is resumed at an evaluated step trains on before it evaluates anything."""

    def draws(name: str, **changes) -> list[dict]:
        """What was asked for, in order, but for evaluation, which asks for prompts of its own."""
        trained = prompts(4)
        trainer = MGSTrainer(
            tiny_policy, reward, config(tmp_path / name, *servers, **changes), trained,
            eval_dataset=prompts(6).select([4, 5, 10, 11, 16, 17]),
        )  # fmt: skip
        known = {tuple(ids) for ids in trainer.processing_class(list(trained["prompt"]))["input_ids"]}
        trainer.train()
        found = [body for server in servers for body in server.requests]
        for server in servers:
            server.requests.clear()
        evaluated = [body["seed"] for body in found if tuple(body["prompt"]) not in known]
        assert len(evaluated) == len(set(evaluated)) == (3 * 6 if changes else 0)
        return sorted((body["prompt"], body["seed"]) for body in found if tuple(body["prompt"]) in known)

    with scripted_server(60) as first, scripted_server(60) as second:
        servers = [first, second][:urls]
        plain = draws("plain")
        evaluated = draws("evaluated", eval_on_start=True, eval_strategy="steps", eval_steps=1)
    assert len(plain) == 2 * 6
    assert evaluated == plain


def test_prompts_are_dealt_out_evenly_and_each_gets_its_own_completions(tiny_policy, tmp_path):
    def run(name: str, *servers) -> tuple[list[tuple], list[int]]:
        written = []

        def keep(prompts, completion_ids, **kwargs):
            written.extend((prompt, tuple(ids)) for prompt, ids in zip(prompts, completion_ids, strict=True))
            return reward(prompts, None, completion_ids)

        trainer = MGSTrainer(tiny_policy, keep, config(tmp_path / name, *servers, max_steps=1), prompts(4))
        trainer.train()
        return written, [len(server.requests) for server in servers]

    with scripted_server(60) as one:
        alone, _ = run("one", one)
    with scripted_server(60) as a, scripted_server(60) as b, scripted_server(60) as c, scripted_server(60) as d:
        together, shares = run("four", a, b, c, d)
    assert together == alone and len(set(alone)) == 24  # six prompts with four completions each
    assert sorted(shares) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("sampling", "corrected", "named"),
    [
        ({"chat": {"top_p": 0.9}, "math": {"top_k": 5}}, True, "['chat', 'math']"),
        ({"chat": {"min_p": 0.1}}, True, "['chat']"),
        ({"chat": {"top_p": 0.9}}, False, None),
        ({"chat": {"temperature": 0.7}}, True, None),
        ("w[0-9]", True, "['chat', 'instruction_following', 'math']"),
    ],
)
def test_truncation_that_the_correction_takes_for_another_policy_is_told(
    tiny_policy, tmp_path, caplog, sampling, corrected, named
):
    with scripted_server(60) as server:
        name = "vllm_structured_outputs_regex" if isinstance(sampling, str) else "sampling"
        fields = {name: sampling, "vllm_importance_sampling_correction": corrected}
        MGSTrainer(tiny_policy, reward, config(tmp_path, server, **fields), prompts(4))
    told = [record.getMessage() for record in caplog.records if record.name.startswith("mgs_trl")]
    assert [message.split(" have ")[0] for message in told] == ([f"the domains {named}"] if named else [])


@pytest.mark.parametrize("mode", ["processed_logprobs", "raw_logprobs"])
def test_every_server_is_asked_which_log_probabilities_it_gives(tiny_policy, tmp_path, caplog, mode):
    with scripted_server(60) as first, scripted_server(60) as second:
        second.logprobs_mode = mode
        MGSTrainer(tiny_policy, reward, config(tmp_path, first, second), prompts(4))
    told = [record for record in caplog.records if "--logprobs-mode raw_logprobs" in record.getMessage()]
    assert len(told) == (mode == "raw_logprobs")


def test_a_batch_has_its_time_whatever_number_of_requests_waits_for_a_turn(monkeypatch):
    """Every answer takes 0.6 of the batch's 1 seconds, and the server takes one request at a time."""
    now, asked = [100.0], []

    def call(server, method, path, limit, body=None, field="timeout"):
        if path != "/v1/completions":
            return {"weight_version": None}
        asked.append(limit)
        now[0] += 0.6
        return {"choices": [body]}

    monkeypatch.setattr("mgs_trl.rollouts.server.time.monotonic", lambda: now[0])
    monkeypatch.setattr("mgs_trl.rollouts.server.MOST_REQUESTS", 1)
    monkeypatch.setattr(Server, "_call", call)
    server = Server("http://a:1", ServerSettings(["http://a:1"], generate_timeout=1.0))
    assert len(server.generate([{"seed": 0}])) == 1
    with pytest.raises(ServerError, match=r"did not answer /v1/completions within 1 seconds \(server.generate_timeout"):
        server.generate([{"seed": seed} for seed in range(9)])
    assert asked == pytest.approx([1.0, 1.0, 0.4])


def test_weights_written_for_servers_are_not_uploaded_with_the_policy(tiny_policy, tmp_path, monkeypatch):
    """`push_to_hub` as transformers does it, but for the upload itself, whose arguments are the hub's own to apply."""
    uploads = []
    hub = SimpleNamespace(upload_folder=lambda **arguments: uploads.append(arguments))
    with scripted_server(60) as server:
        trainer = MGSTrainer(tiny_policy, reward, config(tmp_path, server), long_prompts(5))
        trainer.train()
    monkeypatch.setattr("transformers.trainer.hf_api", lambda: hub)
    monkeypatch.setattr(trainer, "init_hf_repo", lambda **_: None)
    monkeypatch.setattr(trainer, "hub_model_id", "some/model", raising=False)
    trainer.push_to_hub()
    [upload] = uploads
    files = [str(path.relative_to(tmp_path)) for path in Path(upload["folder_path"]).rglob("*") if path.is_file()]
    taken = set(filter_repo_objects(files, ignore_patterns=upload["ignore_patterns"]))
    assert {"model.safetensors", "metrics.jsonl", "conflicts.jsonl"} <= taken
    left = {Path(name).parts[0] for name in set(files) - taken}
    assert left == {"_served_weights"}


@pytest.mark.parametrize("sampling", [None, {"chat": {"temperature": 0.7}}], ids=["one", "by_domain"])
def test_a_rollout_func_that_asks_for_other_prompts_is_told_that_sampling_is_of_rows(tiny_policy, tmp_path, sampling):
    def rollouts(prompts, trainer):
        ids = trainer.processing_class(prompts)["input_ids"]
        trainer.vllm_generation.sync_weights()
        _, written, _, _ = trainer.vllm_generation.generate(ids[::2], None, 2)
        written = [each for each in written for _ in range(2)]
        return {"prompt_ids": ids, "completion_ids": written, "logprobs": [[0.0] * len(each) for each in written]}

    with scripted_server(60) as server:
        args = config(tmp_path, server, max_steps=1, sampling=sampling)
        trainer = MGSTrainer(tiny_policy, reward, args, prompts(4), rollout_func=rollouts)
        if sampling is None:
            trainer.train()
            assert [body["n"] for body in server.requests] == [2] * 6
            return
        with pytest.raises(ValueError, match=r"called with 12 prompts, but sampling differs .* the 24 rows"):
            trainer.train()


def test_only_the_main_process_has_to_reach_the_servers(tmp_path, monkeypatch):
    reached = []
    monkeypatch.setattr(Server, "connect", lambda server: reached.append(server.url))
    with scripted_server(60) as server:
        args = config(tmp_path, server)
        assert args.device.type == "cpu"
        with served(args, lambda: 0):
            assert reached == [server.url]
        monkeypatch.setattr(PartialState, "is_main_process", property(lambda state: False))
        with served(args, lambda: 0):
            assert reached == [server.url]


def test_what_the_main_process_meets_stops_the_others_too(tmp_path, monkeypatch):
    """Process 1 of two, as far as it can tell: it raises what it is sent."""
    sent = RuntimeError("no vLLM server answered")
    monkeypatch.setattr(PartialState, "is_main_process", property(lambda state: False))

    def received(outcome: list, from_process: int) -> None:
        outcome[1] = sent

    monkeypatch.setattr("mgs_trl.ranks.agreement.broadcast_object_list", received)
    with scripted_server(60) as server, pytest.raises(RuntimeError, match=r"^no vLLM server answered$"):
        with served(config(tmp_path, server), lambda: 0):
            pass
