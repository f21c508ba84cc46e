"""Strategies of several runs: `sequential` trains domain after domain, `merge` merges experts of one domain each."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mgs_trl.build import build_trainer
from mgs_trl.recipe import load_recipe, output_of, write_recipe
from mgs_trl.records.checkpoints import last_checkpoint
from mgs_trl.runs.staged import train_strategy
from mgs_trl.strategies.stages import stages_of
from mgs_trl.train import main
from tests.support.trackers import tensorboard_scalars, wandb_runs
from tests.unit.recipes.test_train import SMALL

SETTINGS = [
    *SMALL,
    "trainer.per_device_train_batch_size=8",
    "trainer.max_steps=2",
    "trainer.learning_rate=0.01",
    "trainer.warmup_steps=0",
    "trainer.beta=0.1",
    *(rf"domains.{name}.verifier={{tests.support.rewards\:spread: {{isolated: false}}}}" for name in ("math", "chat")),
]
SEQUENCE = "strategy={sequential: {order: [chat, math]}}"
LORA = "peft={r: 2, target_modules: [q_proj, v_proj], init_lora_weights: gaussian}"


def policy(directory):
    return load_file(directory / "model.safetensors")


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def sequence(directory, tmp_path_factory):
    """A whole sequence: chat, then math."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MGS_TRL_MINIATURE", str(directory))
        output = tmp_path_factory.mktemp("sequence")
        assert main(["miniature", *SETTINGS, SEQUENCE, f"trainer.output_dir={output}"]) == 0
    return output


def test_a_sequence_is_a_chain_of_single_runs(miniature, sequence, tmp_path):
    first, second = tmp_path / "chat", tmp_path / "math"
    chat = ["strategy={single: {domain: chat}}", f"trainer.output_dir={first}"]
    assert main(["miniature", *SETTINGS, *chat]) == 0
    # A stage is not evaluated before it is trained: that was done after the stage before it.
    unseen = [f"~domains.{name}.eval_dataset" for name in ("chat", "instruction_following", "math")]
    math = ["strategy={single: {domain: math}}", f"trainer.output_dir={second}", f"model={first}", *unseen]
    assert main(["miniature", *SETTINGS, *math]) == 0
    assert_same(policy(sequence / "1_chat"), policy(first))
    assert_same(policy(sequence / "2_math"), policy(second))
    assert_same(policy(sequence), policy(second))
    assert not torch.equal(policy(first)["lm_head.weight"], policy(second)["lm_head.weight"])


def test_the_reference_of_a_stage_is_the_policy_of_the_one_before(miniature, sequence):
    """Paper, baselines: the KL term of stage two is to stage one's policy, not to the base model."""
    recipe = load_recipe(sequence / "2_math" / "recipe.yaml")
    trainer = build_trainer(recipe)
    before = policy(sequence / "1_chat")
    assert_same(dict(trainer.ref_model.state_dict()), before)
    assert_same(dict(trainer.model.state_dict()), before)


def test_a_sequence_logs_all_its_stages(sequence):
    logged = lines(sequence / "metrics.jsonl")
    trained = [(line["stage"], line["step"]) for line in logged if "loss" in line]
    assert trained == [("1_chat", 1), ("1_chat", 2), ("2_math", 3), ("2_math", 4)]
    assert all("domain/chat/reward" in line for line in logged if line["stage"] == "1_chat" and "loss" in line)
    evaluated = [line["step"] for line in logged if "eval_domain/instruction_following/reward" in line]
    assert evaluated == [0, 2, 4]  # before, and after each stage; also the domain that was not trained
    launches = json.loads((sequence / "run.json").read_text())["launches"]
    assert [(launch["stage"], launch["from_step"]) for launch in launches] == [("1_chat", 0), ("2_math", 2)]


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [(SEQUENCE, ["1_chat", "2_math"]), ("strategy=merge", ["expert_chat", "expert_math", "merged"])],
)
def test_trackers_show_each_run_of_a_strategy_by_itself(miniature, tmp_path, offline_wandb, strategy, parts):
    """A tracker's run is the process's unless it is ended: steps of one stage came after those of another in it."""
    output = tmp_path / "whole"
    trackers = ["trainer.report_to=[wandb, tensorboard]", "~domains.instruction_following"]
    assert main(["miniature", *SETTINGS, strategy, *trackers, f"trainer.output_dir={output}"]) == 0
    assert offline_wandb.run is None
    runs = wandb_runs(tmp_path)
    assert sorted(runs) == [f"whole-{part}" for part in parts]
    for part in parts:
        here = output if part == "merged" else output / part
        logged = lines(here / "metrics.jsonl")
        for scalars in (runs[f"whole-{part}"], tensorboard_scalars(here / "runs")):
            for split, prefix in (("train/", ""), ("eval/", "eval_")):
                for domain in ("chat", "math"):
                    name = f"domain/{domain}/reward"
                    expected = {line["step"]: line[prefix + name] for line in logged if prefix + name in line}
                    assert scalars.get(split + name, {}) == pytest.approx(expected, rel=1e-6)


def test_trackio_shows_each_stage_with_its_evaluation(miniature, tmp_path, monkeypatch):
    """transformers ends a run with the training; TRL still logs to it in the evaluation after that."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is absent: it would hold pillow back, so `dev` leaves it out")
    from trackio.sqlite_storage import SQLiteStorage

    options = ["trainer.report_to=trackio", "trainer.project=mgs", "trainer.trackio_static_space_id=false"]
    assert main(["miniature", *SETTINGS, SEQUENCE, *options, f"trainer.output_dir={tmp_path / 'whole'}"]) == 0
    assert sorted(SQLiteStorage.get_runs("mgs")) == ["whole-1_chat", "whole-2_math"]
    for run, evaluated in (("whole-1_chat", [0, 2]), ("whole-2_math", [2])):
        entries = SQLiteStorage.get_logs("mgs", run)
        assert [e["train/global_step"] for e in entries if "train/loss" in e] == [1, 2]
        assert [e["train/global_step"] for e in entries if "eval/domain/math/reward" in e] == evaluated


def test_an_interrupted_sequence_goes_on_with_its_stage(miniature, sequence, tmp_path, monkeypatch, capsys):
    """S1: the first stage is not trained again, the second goes on from its checkpoint."""
    import mgs_trl.runs.interrupt as interrupt

    command = ["miniature", *SETTINGS, SEQUENCE, f"trainer.output_dir={tmp_path}"]
    agreed = interrupt.StopOnSignal._agreed
    seen = []

    def stop_in_the_third_step(self, device):
        seen.append(1)
        return signal.SIGTERM if len(seen) == 3 else agreed(self, device)

    monkeypatch.setattr(interrupt.StopOnSignal, "_agreed", stop_in_the_third_step)
    assert main(command) == 128 + signal.SIGTERM
    assert "--resume" in capsys.readouterr().err
    assert not (tmp_path / "model.safetensors").exists()
    first = (tmp_path / "1_chat" / "model.safetensors").stat().st_mtime_ns
    assert main([*command, "--resume"]) == 0
    assert (tmp_path / "1_chat" / "model.safetensors").stat().st_mtime_ns == first
    for name, value in policy(sequence).items():
        assert torch.allclose(policy(tmp_path)[name], value, rtol=1e-6, atol=1e-7), name
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl") if "loss" in line] == [1, 2, 3, 4]


def test_a_finished_stage_that_a_changed_recipe_asks_otherwise_of_is_named(miniature, tmp_path, capsys):
    """It is not trained again: neither its length nor its learning rate may seem to be the new one."""

    def leave(recipe, first):
        output = output_of(recipe)
        output.mkdir()
        write_recipe(recipe, output / "recipe.yaml")
        (output / "run.json").write_text(json.dumps({"launches": []}))
        (output / "metrics.jsonl").touch()
        (output / "model.safetensors").touch()
        return 0

    recipe = load_recipe("miniature", [*SETTINGS, SEQUENCE, f"trainer.output_dir={tmp_path}"])
    assert train_strategy(recipe, leave) == 0
    assert train_strategy(recipe, pytest.fail, resume=True) == 0
    assert "warning" not in capsys.readouterr().err
    recipe.trainer.update(learning_rate=0.5, max_steps=9, logging_steps=3)
    assert train_strategy(recipe, pytest.fail, resume=True) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2
    for line, stage in zip(warnings, ("1_chat", "2_math"), strict=True):
        assert line.startswith(f"warning: stage '{stage}' has finished and stays as it is, with another ")
        assert "another trainer.max_steps, trainer.learning_rate in" in line, line


def test_the_policy_of_a_sequence_is_the_one_that_loads(miniature, tmp_path):
    """An earlier run's weights lie in another file than the last stage's, and transformers would look there first."""
    start = AutoModelForCausalLM.from_pretrained(miniature / "policy")

    def leave(recipe, first):
        output = output_of(recipe)
        AutoModelForCausalLM.from_pretrained(miniature / "policy").save_pretrained(output, max_shard_size="8KB")
        (output / "run.json").write_text(json.dumps({"launches": []}))
        (output / "metrics.jsonl").touch()
        return 0

    for parameter in (earlier := AutoModelForCausalLM.from_pretrained(miniature / "policy")).parameters():
        torch.nn.init.zeros_(parameter)
    earlier.save_pretrained(tmp_path)
    recipe = load_recipe("miniature", [*SETTINGS, SEQUENCE, f"trainer.output_dir={tmp_path}"])
    assert train_strategy(recipe, leave) == 0
    assert_same(AutoModelForCausalLM.from_pretrained(tmp_path).state_dict(), start.state_dict())


def test_a_new_sequence_does_not_take_over_what_an_old_one_left(miniature, tmp_path):
    """The old one has finished; a new one in its place is interrupted in its first stage, and resumed."""

    def leave(recipe, first):
        output = output_of(recipe)
        (output / "checkpoint-5").mkdir(parents=True)
        (output / "checkpoint-5" / "run_id").write_text("old")
        (output / "run.json").write_text(json.dumps({"run_id": "old", "launches": []}))
        (output / "metrics.jsonl").touch()
        (output / "model.safetensors").touch()
        return 0

    found = []
    recipe = load_recipe("miniature", [*SETTINGS, SEQUENCE, f"trainer.output_dir={tmp_path}"])
    assert train_strategy(recipe, leave) == 0
    assert last_checkpoint(tmp_path / "2_math") == tmp_path / "2_math" / "checkpoint-5"
    assert train_strategy(recipe, lambda recipe, first: 143) == 143

    def look(recipe, first):
        found.append(last_checkpoint(output_of(recipe)))
        return 143 if len(found) == 2 else leave_again(recipe)

    def leave_again(recipe):
        (output_of(recipe) / "run.json").write_text(json.dumps({"run_id": "new", "launches": []}))
        return 0

    assert train_strategy(recipe, look, resume=True) == 143
    assert found == [None, None]


def test_adapters_are_merged_before_the_next_stage(miniature, tmp_path):
    """Each stage trains a fresh adapter on the policy that the one before left, which is also its reference."""
    assert main(["miniature", *SETTINGS, SEQUENCE, LORA, f"trainer.output_dir={tmp_path}"]) == 0
    base, first, last = policy(miniature / "policy"), policy(tmp_path / "1_chat"), policy(tmp_path)
    name = "model.layers.0.self_attn.q_proj.weight"
    adapter = load_file(tmp_path / "1_chat" / "adapter" / "adapter_model.safetensors")
    a, b = (adapter[f"base_model.model.{name.removesuffix('.weight')}.lora_{x}.weight"].double() for x in "AB")
    scaling = json.loads((tmp_path / "1_chat" / "adapter" / "adapter_config.json").read_text())["lora_alpha"] / 2
    assert torch.allclose(first[name].double(), base[name].double() + scaling * b @ a, rtol=1e-6, atol=1e-7)
    assert not torch.equal(last[name], first[name])
    assert torch.equal(last["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    trainer = build_trainer(load_recipe(tmp_path / "2_math" / "recipe.yaml"))
    assert trainer.ref_model is None  # TRL takes the policy without its adapter
    kept = trainer.model.get_base_model().state_dict()
    assert torch.equal(kept[name.replace(".weight", ".base_layer.weight")], first[name])


@pytest.mark.parametrize("strategy", ["mgs", "{sequential: {order: [math]}}", "{merge: {method: linear}}"])
def test_a_policy_is_not_mistaken_for_an_adapter_that_an_earlier_run_left(miniature, tmp_path, strategy):
    """transformers loads an adapter that lies beside whole weights, on its own base, and not the weights."""
    command = ["miniature", *SETTINGS, "~domains.instruction_following", f"trainer.output_dir={tmp_path}"]
    assert main([*command, LORA]) == 0
    if "merge" in strategy:
        assert main([*command, LORA, f"strategy={strategy}"]) == 0
    assert main([*command, f"strategy={strategy}"]) == 0
    saved = policy(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    assert_same(saved, {name: loaded[name] for name in saved})
    assert loaded.keys() == saved.keys()
    if "merge" in strategy:
        math, chat = policy(tmp_path / "expert_math"), policy(tmp_path / "expert_chat")
        for name, value in saved.items():
            mean = (math[name].double() + chat[name].double()) / 2
            assert torch.allclose(value.double(), mean, rtol=1e-6, atol=1e-8), name


def test_experts_that_exist_are_merged_and_evaluated(miniature, sequence, tmp_path, capsys):
    experts = f"experts: {{chat: '{sequence / '1_chat'}', math: '{sequence / '2_math'}'}}"
    only = "~domains.instruction_following"
    command = ["miniature", *SETTINGS, only, f"strategy={{merge: {{{experts}, weights: {{math: 3, chat: 1}}}}}}"]
    assert main([*command, f"trainer.output_dir={tmp_path}"]) == 0
    chat, math = policy(sequence / "1_chat"), policy(sequence / "2_math")
    for name, value in policy(tmp_path).items():
        expected = (3 * math[name].double() + chat[name].double()) / 4
        assert torch.allclose(value.double(), expected, rtol=1e-6, atol=1e-8), name
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert {"eval_domain/math/reward", "eval_domain/chat/reward"} <= line.keys()
    assert "Held-out reward" in capsys.readouterr().out


def test_experts_are_trained_where_none_are_given(miniature, tmp_path):
    only = ["~domains.instruction_following", "trainer.max_steps=1"]
    merge = ["strategy={merge: {method: task_arithmetic, weights: {math: 1, chat: 0.5}}}"]
    assert main(["miniature", *SETTINGS, *only, *merge, f"trainer.output_dir={tmp_path}"]) == 0
    base = policy(miniature / "policy")
    math, chat = (policy(tmp_path / f"expert_{name}") for name in ("math", "chat"))
    for name, value in policy(tmp_path).items():
        start = base[name].double()
        expected = start + (math[name].double() - start) + 0.5 * (chat[name].double() - start)
        assert torch.allclose(value.double(), expected, rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("sequential", ["strategy.sequential", "order"]),
        ({"sequential": {"order": []}}, ["strategy.sequential.order", "list of domains"]),
        ({"sequential": {"order": "math"}}, ["strategy.sequential.order", "list of domains"]),
        ({"sequential": {"order": ["math", "chta"]}}, ["'chta'", "Did you mean 'chat'?"]),
        ({"sequential": {"order": ["math"], "steps": {"math": 0}}}, ["steps.math", "above 0"]),
        ({"sequential": {"order": ["math"], "steps": {"maths": 1}}}, ["'maths'", "Did you mean 'math'?"]),
        ({"sequential": {"order": ["math"], "steps": {"math": 1, "chat": 2}}}, ["steps has 'chat'", "['math']"]),
        ({"sequential": {"order": ["math"], "steps": "3"}}, ["steps", "'3'", "a number"]),
        ({"merge": {"method": "tie"}}, ["'tie'", "Did you mean 'ties'?"]),
        ({"merge": {"experts": {"math": "x"}}}, ["strategy.merge.experts", "chat"]),
        ({"merge": {"weights": {"math": 1}}}, ["weights", "chat"]),
    ],
)
def test_bad_options_are_one_sentence(miniature, strategy, words):
    recipe = load_recipe("miniature")
    recipe.strategy = strategy
    with pytest.raises(ValueError) as caught:
        stages_of(recipe)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_steps_and_weights_of_stages(miniature):
    changes = ["strategy={sequential: {order: [chat, math, chat], steps: {math: 7}}}", "trainer.max_steps=3"]
    stages = stages_of(load_recipe("miniature", [*changes, "trainer.domain_weights={math: 1, chat: 2}"]))
    assert [stage.name for stage in stages] == ["1_chat", "2_math", "3_chat"]
    assert [stage.recipe.trainer["max_steps"] for stage in stages] == [3, 7, 3]
    assert [stage.continues for stage in stages] == [False, True, True]
    assert all("domain_weights" not in stage.recipe.trainer for stage in stages)


def test_check_plans_every_stage(miniature, tmp_path, capsys):
    assert main(["miniature", *SETTINGS, SEQUENCE, f"trainer.output_dir={tmp_path / 'out'}", "--check"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "1_chat" in printed and "2_math" in printed
    assert printed.count("nothing wrong found.") == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("extra", [["--resume"], ["--resume", "/"]])
def test_resuming_a_sequence_that_was_not_begun_is_an_error(miniature, tmp_path, capsys, extra):
    assert main(["miniature", *SETTINGS, SEQUENCE, f"trainer.output_dir={tmp_path}", *extra]) == 2
    assert "--resume" in capsys.readouterr().err


def test_resuming_a_sequence_in_another_order_says_which_stages_there_are(miniature, sequence, capsys):
    other = "strategy={sequential: {order: [math, chat]}}"
    before = (sequence / "recipe.yaml").read_text()
    assert main(["miniature", *SETTINGS, other, f"trainer.output_dir={sequence}", "--resume"]) == 2
    said = f"no stage '1_math' in '{sequence}'; 1_chat, 2_math in it are of another order or strategy."
    assert said in capsys.readouterr().err
    assert (sequence / "recipe.yaml").read_text() == before


@pytest.mark.parametrize(
    ("peft", "words"),
    [
        ("{rank: 4}", ["peft", "'rank'"]),
        ("{peft_type: LORRA}", ["peft.peft_type", "'LORRA'", "Did you mean"]),
        ("{target_modls: [q_proj]}", ["'target_modls'", "Did you mean 'target_modules'?"]),
    ],
)
def test_bad_adapters_are_one_sentence(miniature, tmp_path, capsys, peft, words):
    assert main(["miniature", *SETTINGS, f"peft={peft}", f"trainer.output_dir={tmp_path}"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words), line


def test_only_verifiers_that_score_something_are_made_ready(miniature, tmp_path):
    """A run of one domain need not hold the reward model of another."""
    alone = ["strategy={single: {domain: math}}", "~domains.chat.eval_dataset", f"trainer.output_dir={tmp_path}"]
    missing = "domains.chat.verifier={reward_model: {model: /no/such/model}}"
    trainer = build_trainer(load_recipe("miniature", [*SMALL, *alone, missing]))
    names = {function.__name__.split("/")[0] for function in trainer.reward_funcs}
    assert names == {"math", "instruction_following"}


def test_a_new_sequence_leaves_no_log_of_an_earlier_run(miniature, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    for name in ("conflicts.jsonl", "metrics.jsonl", "run.json"):
        (output / name).write_text("{}\n")
    recipe = load_recipe("miniature", [*SETTINGS, SEQUENCE, f"trainer.output_dir={output}"])
    assert train_strategy(recipe, lambda recipe, first: 3) == 3
    assert sorted(path.name for path in output.glob("*.json*")) == []


def test_a_stage_that_left_no_policy_has_not_finished(miniature, tmp_path):
    recipe = load_recipe("miniature", [*SETTINGS, "strategy={merge: {}}", f"trainer.output_dir={tmp_path}"])

    def train(recipe, first):
        output_of(recipe).mkdir(parents=True)
        return 0

    with pytest.raises(ValueError, match="stage 'expert_math' has ended, but there is no policy in"):
        train_strategy(recipe, train)
    assert not list(tmp_path.rglob("finished"))
