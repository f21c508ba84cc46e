"""Each domain's sampling: what is drawn, what is counted as cut, and the temperature of log-probabilities."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl import GRPOTrainer

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.rollouts.sampling import parse_sampling
from mgs_trl.training import rollout_trainer
from tests.support.rollouts import DOMAINS, ScriptedRollouts, prompts, reward
from tests.unit.trainer.conftest import SETTINGS

TEMPERATURES = {"chat": 0.7, "instruction_following": 1.0, "math": 1.6}
SAMPLING = {name: {"temperature": value} for name, value in TEMPERATURES.items()}


def build(policy, folder, rollouts=None, data=None, heldout=None, **changes) -> MGSTrainer:
    args = MGSConfig(output_dir=str(folder), **{**SETTINGS, **changes})
    data = prompts(10) if data is None else data
    return MGSTrainer(policy, reward, args, data, eval_dataset=heldout, rollout_func=rollouts)


def log_probabilities(model, rows: dict, temperatures: list[float], logits_to_keep: int) -> torch.Tensor:
    """[rows, completion tokens], from plain logits in float64."""
    ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], dim=1)
    mask = torch.cat([rows["prompt_mask"], rows["completion_mask"]], dim=1)
    logits = model(ids, attention_mask=mask).logits.double()[:, :-1]
    scaled = (logits / torch.tensor(temperatures).view(-1, 1, 1)).log_softmax(-1)
    return scaled.gather(2, ids[:, 1:, None]).squeeze(2)[:, -logits_to_keep:]


def assert_scored_at(temperatures: list[float], policy: str, found: dict) -> None:
    """The reference's log-probabilities are those of plain logits at each row's temperature."""
    plain = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    with torch.no_grad():
        expected = log_probabilities(plain, found, temperatures, found["completion_ids"].size(1))
    mask = found["completion_mask"].bool()
    torch.testing.assert_close(found["ref_per_token_logps"][mask].double(), expected[mask], rtol=1e-5, atol=1e-5)


def test_a_mixed_batch_is_scored_at_each_rows_temperature(tiny_policy, tmp_path):
    trainer = build(tiny_policy, tmp_path, ScriptedRollouts(), sampling=SAMPLING, beta=0.1)
    rows = [row for row in trainer.train_dataset for _ in range(4)][::-1]
    rows = rows[:8] + rows[40:48] + rows[80:88]
    trainer.model.train()
    passed = []
    trainer.ref_model.register_forward_pre_hook(
        lambda model, args, kwargs: passed.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    found = trainer._generate_and_score_completions(rows)
    assert sum(passed) == len(rows)  # not once for every temperature
    temperatures = [TEMPERATURES[row["domain"]] for row in rows]
    assert_scored_at(temperatures, tiny_policy, found)


def test_every_block_trains_at_its_domains_temperature(tiny_policy, tmp_path):
    seen = []

    class Watched(MGSTrainer):
        def _get_per_token_logps_and_entropies(self, model, ids, mask, keep, *args, **kwargs):
            result = super()._get_per_token_logps_and_entropies(model, ids, mask, keep, *args, **kwargs)
            if self._block is not None:
                with torch.no_grad():
                    temperature = TEMPERATURES[self.mix.domains[self._block.domain]]
                    rows = {name: self._block[name] for name in ("prompt_ids", "prompt_mask")}
                    rows |= {name: self._block[name] for name in ("completion_ids", "completion_mask")}
                    expected = log_probabilities(self.model, rows, [temperature] * len(ids), keep)
                here = self._block["completion_mask"].bool()
                seen.append((self._block.domain, (result[0].double() - expected)[here].abs().max().item()))
            return result

    args = MGSConfig(
        output_dir=str(tmp_path), **{**SETTINGS, "sampling": SAMPLING, "num_iterations": 2, "max_steps": 4}
    )
    trainer = Watched(tiny_policy, reward, args, prompts(10), rollout_func=ScriptedRollouts())
    trainer.train()
    assert {domain for domain, _ in seen} == {0, 1, 2}
    assert max(error for _, error in seen) < 1e-5
    # At the second iteration old and new log-probabilities differ by what one step did, not by a temperature.
    assert all(log["clip_ratio/region_mean"] < 1 for log in trainer.state.log_history if "reward" in log)


@pytest.mark.parametrize("domains", [DOMAINS, ("math",)], ids=["three", "one"])
@pytest.mark.parametrize("lengths", [(12, 12, 12), (5, 6, 7)], ids=["alike", "lengths_differ"])
def test_a_temperature_that_all_domains_share_is_that_of_their_log_probabilities(
    tiny_policy, tmp_path, domains, lengths
):
    """It need not be the trainer's own, which is 1 here."""
    sampling = {
        name: {"temperature": 0.7, "max_completion_length": length}
        for name, length in zip(domains, lengths, strict=False)
    }
    trainer = build(tiny_policy, tmp_path, ScriptedRollouts(), prompts(10, domains), sampling=sampling, beta=0.1)
    trainer.model.train()
    rows = [trainer.train_dataset[i] for i in (0, 5, 9) for _ in range(4)]
    assert_scored_at([0.7] * 12, tiny_policy, trainer._generate_and_score_completions(rows))
    # While the policy trains, a domain by itself is not cut into blocks.
    trainer._block = None if len(domains) == 1 else SimpleNamespace(domain=0)
    ids, mask = torch.randint(3, 161, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    logps, *_ = MGSTrainer.__base__._get_per_token_logps_and_entropies(trainer, trainer.model, ids, mask, 4)
    whole = {"prompt_ids": ids[:, :5], "prompt_mask": mask[:, :5]}
    whole |= {"completion_ids": ids[:, 5:], "completion_mask": mask[:, 5:]}
    with torch.no_grad():
        expected = log_probabilities(trainer.model, whole, [0.7, 0.7], 4)
    torch.testing.assert_close(logps.double(), expected, rtol=1e-5, atol=1e-5)


def test_data_without_domains_trains_at_the_runs_temperature(tiny_policy, tmp_path):
    """Only the evaluation has domains, one of them with a temperature of its own."""
    heldout = prompts(10).select([0, 20])
    settings = {"sampling": {"math": {"temperature": 0.7}}, "beta": 0.1}
    data = prompts(10).remove_columns("domain")
    trainer = build(tiny_policy, tmp_path, ScriptedRollouts(), data, heldout, **settings)
    trainer.train()
    rows = [row for row in data.select([0, 1]) for _ in range(4)]
    assert_scored_at([1.0] * 8, tiny_policy, trainer._generate_and_score_completions(rows))


@pytest.mark.parametrize("scripted", [True, False], ids=["scripted", "transformers"])
def test_evaluation_rows_without_a_domain_are_drawn_and_scored_as_the_run_is(tiny_policy, tmp_path, scripted):
    heldout = {"plain": prompts(2).remove_columns("domain"), "mixed": prompts(2)}
    settings = {"sampling": SAMPLING, "temperature": 1.2, "beta": 0.1, "num_generations_eval": 2}
    rollouts = ScriptedRollouts() if scripted else None
    trainer = build(tiny_policy, tmp_path, rollouts, heldout=heldout, per_device_eval_batch_size=4, **settings)
    trainer.model.eval()
    rows = [heldout["plain"][0], heldout["plain"][1], heldout["mixed"][0], heldout["mixed"][4]]
    found = trainer._generate_and_score_completions([row for row in rows for _ in range(2)])
    temperatures = [1.2, 1.2, TEMPERATURES["chat"], TEMPERATURES["math"]]
    assert_scored_at([value for value in temperatures for _ in range(2)], tiny_policy, found)
    assert (found["completion_mask"].sum(1) > 1).any()
    alone = trainer._generate_and_score_completions([row for row in heldout["plain"] for _ in range(2)])
    assert_scored_at([1.2] * 12, tiny_policy, alone)
    assert alone["completion_mask"].sum(1).max() > 1
    assert trainer.evaluate()["eval_plain_loss"] is not None


def test_transformers_draws_every_domain_in_its_own_way(tiny_policy, tmp_path):
    sampling = {"chat": {"top_k": 1, "max_completion_length": 5}, "math": {"max_completion_length": 3}}
    trainer = build(tiny_policy, tmp_path, sampling=sampling)
    rows = [row for row in trainer.train_dataset for _ in range(4)]
    rows = rows[:8] + rows[40:48] + rows[80:88]
    trainer.model.train()
    found = trainer._generate_and_score_completions(rows)
    lengths = found["completion_mask"].sum(1).tolist()
    longest = {name: max(lengths[8 * i : 8 * i + 8]) for i, name in enumerate(DOMAINS)}
    assert longest["chat"] <= 5 and longest["math"] <= 3
    assert longest["instruction_following"] > 5  # the run's own limit of 12
    plain = AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32)
    for i in range(8):
        ids = found["prompt_ids"][i][found["prompt_mask"][i].bool()][None]
        with torch.no_grad():
            for _ in range(lengths[i]):
                ids = torch.cat([ids, plain(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        assert ids[0, -lengths[i] :].tolist() == found["completion_ids"][i][: lengths[i]].tolist()
    trainer.log({})
    [entry] = trainer.state.log_history
    cut = [ids[n - 1] != 1 for ids, n in zip(found["completion_ids"].tolist(), lengths, strict=True)]
    for i, name in enumerate(DOMAINS):
        assert entry[f"domain/{name}/clipped_ratio"] == pytest.approx(sum(cut[8 * i : 8 * i + 8]) / 8)
        assert entry[f"domain/{name}/max_length"] == longest[name]
        assert entry[f"domain/{name}/tokens"] == sum(lengths[8 * i : 8 * i + 8])


def test_equal_settings_change_nothing(tiny_policy, tmp_path):
    """A domain that is given what all have trains as if it had been given nothing."""
    parameters = []
    for sampling in (None, {"math": {}}):
        trainer = build(tiny_policy, tmp_path, sampling=sampling, max_steps=2)
        assert not trainer._sampling.differs
        trainer.train()
        parameters.append({name: p.detach().clone() for name, p in trainer.model.named_parameters()})
    for name, value in parameters[0].items():
        assert torch.equal(value, parameters[1][name])


def test_prompts_longer_than_the_context_are_cut_on_the_left_and_counted(tiny_policy, tmp_path):
    trainer = build(tiny_policy, tmp_path, ScriptedRollouts())
    trainer.model.train()
    context = trainer.model.config.max_position_embeddings
    words = [f"w{i % 90}" for i in range(context + 7)]
    ids, _, _ = trainer._tokenize_prompts([" ".join(words), "w3 w4"])
    whole = trainer.processing_class([" ".join(words), "w3 w4"])["input_ids"]
    assert ids == [whole[0][-(context - 12) :], whole[1]]
    assert trainer._metrics["train"]["rollouts/truncated_prompts"] == [0.5]


@pytest.mark.parametrize("images", [None, [None, ["an image"]]], ids=["texts", "one_image"])
def test_every_rank_counts_prompts_whether_its_own_have_images_or_not(tiny_policy, tmp_path, monkeypatch, images):
    """TRL says `images=None` on a rank whose prompts have none: if the others counted nothing, it would wait there."""
    trainer = build(tiny_policy, tmp_path, ScriptedRollouts())
    long, short, gathered = list(range(300)), [3, 4], []
    fields = {} if images is None else {"pixel_values": torch.zeros(1)}
    monkeypatch.setattr(GRPOTrainer, "_tokenize_prompts", lambda *_: ([long, short], images, fields))
    monkeypatch.setattr(rollout_trainer, "gather", lambda tensor: gathered.append(tensor.tolist()) or tensor)
    ids, *rest = trainer._tokenize_prompts(["long", "short"])
    assert gathered == [[images is None, False]] and rest == [images, fields]
    assert ids == [long if images else long[-(trainer.model.config.max_position_embeddings - 12) :], short]


@pytest.mark.parametrize("extra", [{"scale_rewards": "batch"}, {"multi_objective_aggregation": "normalize_then_sum"}])
def test_logged_advantages_are_those_that_train(tiny_policy, tmp_path, extra):
    trainer = build(tiny_policy, tmp_path, ScriptedRollouts(), log_completions=True, **extra)
    trainer.model.train()
    rows = [trainer.train_dataset[i] for i in (0, 1, 10, 11, 20, 21) for _ in range(4)]
    for _ in range(2):  # a second batch takes the place of the first
        found = trainer._generate_and_score_completions(rows)
        logged = torch.tensor(trainer._logs["advantages"])
        assert torch.equal(logged, found["advantages"])
    assert len(trainer._logs["prompt"]) == len(logged) == 24
    rewards = trainer._rewards_per_func.view(3, 2, 4)  # by domain, prompt and completion
    centred = rewards - rewards.mean(dim=2, keepdim=True)
    if "scale_rewards" not in extra:
        rewards = centred = centred / (rewards.std(dim=2, keepdim=True) + 1e-4)
    expected = centred / (rewards.flatten(1).std(dim=1)[:, None, None] + 1e-4)
    torch.testing.assert_close(logged, expected.flatten(), rtol=1e-5, atol=1e-5)


def test_completions_without_a_limit_leave_the_prompt_its_context(tiny_policy, tmp_path):
    trainer = build(tiny_policy, tmp_path, ScriptedRollouts(), max_completion_length=None)
    assert trainer._prompt_room() == trainer.model.config.max_position_embeddings - 1
    with pytest.raises(ValueError, match="max_completion_length is None, but with sampling by domain"):
        build("there is no such model", tmp_path, max_completion_length=None, sampling=SAMPLING)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"math": {"temperatur": 1.0}}, "sampling.math has the unknown key 'temperatur'"),
        ({"math": {"temperature": 0}}, "sampling.math.temperature is 0, but it must be a number greater than 0"),
        ({"math": {"top_p": 1.5}}, "sampling.math.top_p is 1.5"),
        ({"math": {"top_k": -1}}, "sampling.math.top_k is -1"),
        ({"math": {"min_p": 2}}, "sampling.math.min_p is 2"),
        ({"math": {"max_completion_length": 13}}, "must be at most the run's max_completion_length, 12"),
        ({"math": {"stop": 5}}, r"sampling.math.stop is \(5,\), but it must be a list of texts"),
        ({"math": {"stop": {"end": 1}}}, "sampling.math.stop is .* but it must be a list of texts"),
        ({"math": {"stop_completes": 1}}, "sampling.math.stop_completes is 1"),
        ({"math": 1.0}, "sampling.math is 1.0, but it must map"),
        ({"math": {"stop": ["end"]}}, r"stop strings \['end'\], but transformers' rollouts have none"),
        ({"maths": {"temperature": 0.5}}, "sampling names the domain 'maths', but there is only chat"),
    ],
)
def test_wrong_settings_are_named_before_a_model_loads(tmp_path, sampling, message):
    with pytest.raises(ValueError, match=message):
        build("there is no such model", tmp_path, sampling=sampling)


def test_a_stop_that_is_no_text_is_named_where_it_is_given(tmp_path):
    with pytest.raises(ValueError, match=r"generation_kwargs.stop is \(5,\), but it must be a list of texts"):
        MGSConfig(output_dir=str(tmp_path), **SETTINGS, generation_kwargs={"stop": 5})


@pytest.mark.parametrize("name", ["temperature", "seed", "n", "num_return_sequences", "logprobs", "prompt_logprobs"])
def test_generation_kwargs_that_draw_otherwise_than_the_trainer_takes_it_are_refused(tmp_path, name):
    """A seed makes a prompt's completions alike; of several log-probabilities TRL takes the largest."""
    with pytest.raises(ValueError, match=f"generation_kwargs has '{name}', but .*; (set|leave)"):
        MGSConfig(output_dir=str(tmp_path), **SETTINGS, generation_kwargs={name: 2})


def test_a_temperature_below_vllms_least_is_refused_for_vllm(tmp_path):
    """At which it draws instead, and says so in a log only."""
    cold = {"temperature": 0.009}
    for changes, name in ((cold, "temperature"), ({"sampling": {"math": cold}}, "sampling.math.temperature")):
        with pytest.raises(ValueError, match=rf"^{name} is 0.009, but vLLM draws at no less than 0.01"):
            MGSConfig(output_dir=str(tmp_path), **SETTINGS, **changes, use_vllm=True)
        MGSConfig(output_dir=str(tmp_path), **SETTINGS, **changes)
    MGSConfig(output_dir=str(tmp_path), **SETTINGS, temperature=0.01, use_vllm=True)


def test_the_defaults_are_those_of_the_run(tmp_path):
    settings = {**SETTINGS, "temperature": 0.9, "top_k": 7, "sampling": {"math": {"top_p": 0.5}}}
    sampling = parse_sampling(MGSConfig(output_dir=str(tmp_path), **settings))
    assert (sampling.of("math").temperature, sampling.of("math").top_k, sampling.of("math").top_p) == (0.9, 7, 0.5)
    assert sampling.of("chat") == sampling.default and sampling.temperatures == [0.9]
