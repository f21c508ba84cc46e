"""The engine's weights against the policy's: what must be found, and what must not be taken for an error."""

import copy
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer, ProcessorMixin

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.build import release
from mgs_trl.rollouts.errors import StaleWeightsError
from mgs_trl.rollouts.weight_check import WeightCheck, check_weights
from tests.conftest import build_tiny_policy
from tests.support.rollouts import prompts


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    # vLLM's attention wants heads of at least 32.
    sizes = {"vocab_size": 161, "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    return str(build_tiny_policy(tmp_path_factory.mktemp("check-policy"), **sizes))


class Engine:
    """A copy of the policy, computed by transformers, that takes weights only when told."""

    def __init__(self, policy, dtype=torch.float32):
        self.policy, self.dtype = policy, dtype
        self.load()

    def load(self):
        self.model = copy.deepcopy(self.policy).to(self.dtype)

    def __call__(self, tokens: list[int]) -> list[float]:
        with torch.no_grad():
            logits = self.model(torch.tensor([tokens])).logits[0].double()
        return [float(logits[i].log_softmax(0)[token]) for i, token in enumerate(tokens[1:])]


def step(model, size: float) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("dtype, size", [(torch.float32, 1e-5), (torch.bfloat16, 3e-3), (torch.bfloat16, 0.1)])
def test_one_skipped_load_is_found_and_loaded_ones_pass(policy, dtype, size):
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    engine = Engine(model, dtype)
    check = WeightCheck(model, engine, 161, exact=dtype == torch.float32, every=1)
    for _ in range(3):
        check.after_sync()
        step(model, size)
        engine.load()
    check.after_sync()
    step(model, size)
    with pytest.raises(StaleWeightsError, match="after synchronization 5") as error:
        check.after_sync()
    assert "\n" not in str(error.value)


def test_weights_under_a_wrong_name_are_found(policy):
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    step(model, 0.3)  # a fresh model hardly attends to anything
    engine = Engine(model)
    layers = engine.model.model.layers
    layers[0].self_attn.q_proj.weight.data, layers[0].self_attn.k_proj.weight.data = (
        layers[0].self_attn.k_proj.weight.data,
        layers[0].self_attn.q_proj.weight.data,
    )
    with pytest.raises(StaleWeightsError, match=r"where 0\.001 is allowed"):
        WeightCheck(model, engine, 161, exact=True, every=1).after_sync()


def test_not_a_number_is_found(policy):
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    with pytest.raises(StaleWeightsError, match="by nan"):
        WeightCheck(model, lambda tokens: [float("nan")] * 31, 161, exact=True, every=1).after_sync()


def test_only_the_first_two_and_every_nth_synchronization_are_checked(policy):
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    engine, asked = Engine(model), []

    def counted(tokens):
        asked.append(check._syncs)
        return engine(tokens)

    check = WeightCheck(model, counted, 161, exact=True, every=4)
    for _ in range(9):
        check.after_sync()
    assert asked == [1, 2, 4, 8]
    never = WeightCheck(model, counted, 161, exact=True, every=0)
    never.after_sync()
    assert len(asked) == 4


def test_check_leaves_the_policy_as_it_was(policy):
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    model.train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    WeightCheck(model, Engine(model), 161, exact=True, every=1).after_sync()
    assert model.training and torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def generation_on_server(model, processor):
    """As much of a `VLLMGeneration` as the check looks at."""
    info = {"model_config": {"dtype": "torch.float32", "max_model_len": 64}}
    asked = []

    def prompt_logps(tokens):
        asked.append(tokens)
        return Engine(model)(tokens)

    return SimpleNamespace(
        mode="server",
        accelerator=Accelerator(cpu=True),
        vllm_client=SimpleNamespace(get_server_info=lambda: info),
        servers=[SimpleNamespace(prompt_logps=prompt_logps)],
        model=model,
        processing_class=processor,
        sync_weights=lambda: None,
        asked=asked,
    )


def test_the_policy_may_have_a_processor_in_place_of_a_tokenizer(policy):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(policy), AutoTokenizer.from_pretrained(policy)

    class Processor(ProcessorMixin):
        def __init__(self):
            self.tokenizer = tokenizer

    texts = []
    for processor in (tokenizer, Processor()):
        generation = generation_on_server(model, processor)
        check_weights(generation, every=1)
        generation.sync_weights()
        texts += generation.asked
    assert len(texts) == 2 and texts[0] == texts[1] and max(texts[0]) < len(tokenizer)


def test_a_check_that_never_runs_asks_for_nothing():
    generation = SimpleNamespace(sync_weights=lambda: None)
    before = generation.sync_weights
    check_weights(generation, every=0)
    assert generation.sync_weights is before


def reward(completion_ids, **kwargs):
    return [float(ids[0] % 7) + 0.1 * (len(ids) % 3) for ids in completion_ids]


def test_colocated_engine_whose_second_synchronization_is_lost_stops_the_run(policy, tmp_path, monkeypatch):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    import mgs_trl.trainer as module

    reload, calls = module.reload_weights, []

    def loses_the_second(generation):
        calls.append(generation)
        if len(calls) != 2:
            reload(generation)

    monkeypatch.setattr(module, "reload_weights", loses_the_second)
    args = MGSConfig(
        output_dir=str(tmp_path), use_vllm=True, vllm_mode="colocate", vllm_max_model_length=64, use_cpu=True,
        bf16=False, per_device_train_batch_size=8, gradient_accumulation_steps=3, num_generations=4, max_steps=3,
        learning_rate=1e-4, max_completion_length=8, logging_steps=1, report_to=[], save_strategy="no",
        disable_tqdm=True, model_init_kwargs={"dtype": "float32"},
    )  # fmt: skip
    trainer = MGSTrainer(policy, reward, args, prompts(10))
    with pytest.raises(StaleWeightsError, match="after synchronization 2"):
        trainer.train()
    assert len(calls) == 2 and trainer.state.global_step == 1
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-1", dtype=torch.float32)
    torch.testing.assert_close(dict(saved.named_parameters()), dict(trainer.model.named_parameters()), rtol=0, atol=0)

    # The engine is stale now, as after a crash: the resumed run must begin with the checkpoint's weights (S2).
    monkeypatch.undo()
    trainer._last_loaded_step = -1  # as in a new process
    generate, seen = trainer.vllm_generation.generate, []

    def recorded(*positional, **named):
        seen.append(trainer.vllm_generation.llm.generate)
        return generate(*positional, **named)

    trainer.vllm_generation.generate = recorded
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert trainer.state.global_step == 3 and len(seen) == 2 and len(calls) == 4
    logs = [log for log in trainer.state.log_history if "reward" in log]
    assert max(log["sampling/sampling_logp_difference/max"] for log in logs) < 0.001
    release(trainer)
