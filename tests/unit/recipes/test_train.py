"""The command: training a recipe end to end, `--check`, user errors without traceback, interruption and resuming."""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import TrainerControl

from mgs_trl.blame import refused
from mgs_trl.check import check
from mgs_trl.recipe import load_recipe
from mgs_trl.records.checkpoints import last_checkpoint
from mgs_trl.records.metrics_log import COMMAND
from mgs_trl.runs.interrupt import StopOnSignal
from mgs_trl.strategies import mean_weights
from mgs_trl.train import _again, _parse, main

SMALL = [
    "rollout=transformers",
    "trainer.use_cpu=true",
    "trainer.per_device_train_batch_size=12",
    "trainer.num_generations=2",
    "trainer.per_device_eval_batch_size=6",
    "trainer.max_completion_length=4",
]
DOMAINS = ["chat", "instruction_following", "math"]


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def command(miniature, output):
    """Arguments of a run of a few tiny steps."""
    return ["miniature", *SMALL, "trainer.max_steps=3", f"trainer.output_dir={output}"]


def test_a_recipe_trains_evaluates_and_ends_with_tables(command, output, capsys):
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "Held-out reward" in printed
    assert "Conflicts between domains" in printed
    assert load_recipe(output / "recipe.yaml") == load_recipe("miniature", command[1:])
    assert (output / "model.safetensors").is_file()
    steps = [json.loads(line) for line in (output / "conflicts.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert all(step["domains"] == DOMAINS for step in steps)
    logged = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged if "domain/math/reward" in entry] == [1, 2, 3]
    assert [entry["step"] for entry in logged if "eval_domain/math/reward" in entry] == [0, 3]


def test_the_flagship_recipe_trains_on_the_example_data(miniature, output, capsys):
    """The large recipe, prompt template and data schemas included; only models and sizes are replaced."""
    data = Path(__file__).parents[3] / "examples" / "data"
    overrides = [
        *SMALL,
        f"model={miniature / 'policy'}",
        f"domains.math.dataset={data / 'simplerl_level3to5.jsonl'}",
        f"domains.chat.dataset={data / 'wildchat_if.jsonl'}",
        f"domains.chat.verifier={{reward_model: {{model: '{miniature / 'reward_model'}'}}}}",
        f"domains.instruction_following.dataset={data / 'nemotron_if.jsonl'}",
        *(f"domains.{name}.sampling.stop=[]" for name in DOMAINS),
        "max_prompt_length=1000",
        "trainer.gradient_accumulation_steps=2",
        "trainer.bf16=false",
        "trainer.max_steps=2",
        "trainer.learning_rate=0.01",
        f"trainer.output_dir={output}",
    ]
    assert main(["math_chat_if", *overrides]) == 0
    assert "Conflicts between domains" in capsys.readouterr().out
    template = (output / "chat_template.jinja").read_text()
    assert "<query>" in template  # saved with the model, so that whoever loads it prompts it alike


def test_single_trains_one_domain_and_evaluates_all(command, output, capsys):
    strategy = ["strategy={single: {domain: math}}", "trainer.max_steps=1"]
    assert main([*command, *strategy]) == 0
    assert "Held-out reward" in capsys.readouterr().out
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    trained = {key.split("/")[1] for line in lines for key in line if key.startswith("domain/")}
    evaluated = {key.split("/")[1] for line in lines for key in line if key.startswith("eval_domain/")}
    assert trained == {"math"} and evaluated == {"chat", "instruction_following", "math"}


def test_check_prints_the_plan_and_trains_nothing(command, output, capsys):
    assert main([*command, "--check", "--ranks", "2"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "12 prompts x 2 completions over 2 rank(s)" in printed  # 12 rows x 2 ranks / 2 completions
    assert "nothing wrong found." in printed
    assert "9 (plain)" in printed  # the rows of math
    assert "kept domain gradients" in printed and "(ddp over 2 ranks)" in printed
    assert not output.exists()


@pytest.mark.parametrize(
    ("changes", "steps", "times"),
    [
        ([], 2 * 3, {"math": 6 * 3 / 9}),  # 6 prompts to a step, 3 of math
        (["trainer.num_iterations=2", "trainer.steps_per_generation=2"], 2 * 4, {"math": 4 * 3 / 9}),
        (["strategy={single: {domain: math}}"], 2, {"math": 2 * 6 / 9}),
    ],
)
def test_check_tells_how_long_the_run_will_be(command, output, changes, steps, times):
    unseen = [f"~domains.{name}.eval_dataset" for name in DOMAINS]
    arguments = [*command, "trainer.max_steps=-1", "trainer.num_train_epochs=2", *unseen, *changes]
    plan = check(load_recipe(arguments[0], arguments[1:]))
    assert plan.steps == steps
    assert {name: plan.times_drawn(name) for name in times} == times
    assert main(arguments) == 0
    logged = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert max(entry["step"] for entry in logged) == steps


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["trainer.learning_rat=1"], ["learning_rat", "learning_rate"]),
        (["domains.math.verifier=maths"], ["maths", "math"]),
        (["domains.math.verifier={math: {fallbak: none}}"], ["fallbak", "fallback"]),
        (["domains.math.verifier=no_such_module:f"], ["no_such_module"]),
        (["domains.math.dataset={data}/chat_train.jsonl"], ["math", "chat_train.jsonl", "answer"]),
        (["domains.math.dataset={data}/none.jsonl"], ["none.jsonl"]),
        (["domains.math.share=1000"], ["no prompt", "smallest window"]),
        (["model=./nowhere"], ["model is './nowhere'", "no such directory"]),
        (["model={data}/../adapter"], ["model is", "adapter'", "merge it"]),
        (
            ["domains.chat.verifier.reward_model.model={data}/none"],
            ["domains.chat.verifier: reward_model.model is", "data/none'", "no such directory"],
        ),
        (["domains.instruction_following.dataset.columns.kwargs=args"], ["args", "kwargs"]),
    ],
)
@pytest.mark.parametrize("flags", [["--check"], []], ids=["check", "train"])
def test_user_errors_are_one_sentence_and_exit_code_2(command, miniature, output, capsys, changes, words, flags):
    (miniature / "adapter").mkdir(exist_ok=True)
    (miniature / "adapter" / "adapter_config.json").write_text("{}")
    changes = [change.format(data=miniature / "data") if "{data}" in change else change for change in changes]
    assert main([*command, *changes, *flags]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words), line
    assert not (output / "model.safetensors").exists()


@pytest.mark.parametrize("rank, local, prefix", [("0", "0", ""), ("8", "0", "rank 8: "), ("9", "1", None)])
def test_each_node_says_what_its_first_rank_cannot_find(tmp_path, capsys, monkeypatch, rank, local, prefix):
    """Another node may lack a file that rank 0 has; here the recipe, which is read before ranks look for each other."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("LOCAL_RANK", local)
    assert main([str(tmp_path / "none.yaml")]) == 2
    found = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert ["none.yaml" in line for line in found] == ([] if prefix is None else [True])
    assert all(line.startswith(f"{prefix}error: ") for line in found)


def test_a_reward_function_of_the_wrong_length_is_a_user_error(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "short_rewards.py").write_text("def two(completions, **columns):\n    return [1.0, 1.0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main([*command, r"domains.chat.verifier={short_rewards\:two: {isolated: false}}"]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "chat/two" in line
    assert "2" in line
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # given back after the error


def sentence(capsys) -> str:
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["trainer.output_dir={file}"], ["trainer.output_dir is", "recipe_file", "File exists"]),
        (["trainer.output_dir=/proc/nope/out"], ["trainer.output_dir is '/proc/nope/out'", "cannot be made"]),
        (["trainer.output_dir=/proc"], ["trainer.output_dir is '/proc'", "written to"]),
        (
            ["trainer.output_dir=/proc", "strategy={sequential: {order: [math]}}"],
            ["output_dir is '/proc'", "written to"],
        ),
        (["peft={r: 2, target_modules: [no_such]}"], ["peft fits no module", "no_such"]),
        (["model.kwargs={no_such: 1}"], ["the trainer cannot be made", "no_such"]),
        (["trainer.optim_args=momentum"], ["training cannot begin", "not enough values to unpack"]),
        (["trainer.use_liger_kernel=true"], ["use_liger_kernel", "pip install liger-kernel"]),
        (
            [r"domains.math.verifier={reward_server: {url: 'http://127.0.0.1:9', api: json, retries: 0}}"],
            ["verifier 'math/reward_server'", "http://127.0.0.1:9"],
        ),
    ],
)
def test_what_training_alone_can_find_is_one_sentence(command, tmp_path, capsys, changes, words):
    (tmp_path / "recipe_file").touch()
    assert (
        main(
            [
                *command,
                *(change.format(file=tmp_path / "recipe_file") if "{file}" in change else change for change in changes),
            ]
        )
        == 2
    )
    line = sentence(capsys)
    assert all(word in line for word in words), line


def test_a_reward_function_that_exits_is_no_success(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "exits.py").write_text("import sys\n\ndef zero(completions, **columns):\n    sys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main([*command, r"domains.chat.verifier={exits\:zero: {isolated: false}}"]) == 2
    assert "chat/zero" in (line := sentence(capsys)) and "SystemExit" in line


@pytest.mark.parametrize("resume", [["--resume"], ["--resume", "no/such/checkpoint"]])
def test_resuming_from_nothing_is_an_error(command, capsys, resume):
    assert main([*command, *resume]) == 2
    assert "--resume" in capsys.readouterr().err


def test_a_checkpoint_of_another_form_is_refused(command, output, tmp_path, capsys):
    lora = "peft={r: 2, target_modules: [q_proj]}"
    steps = [*command, "trainer.max_steps=1", "trainer.save_strategy=steps", "trainer.save_steps=1"]
    assert main([*steps, f"--resume={tmp_path}"]) == 2
    assert f"{str(tmp_path)!r} is no checkpoint" in sentence(capsys)
    for before, after, words in (
        ([], [lora], "of a whole policy, but the recipe has peft"),
        ([lora], [], "of an adapter"),
    ):
        assert main([*steps, *before]) == 0
        assert main([*steps, *after, "--resume"]) == 2
        assert words in sentence(capsys)


def test_on_the_command_line_errors_have_no_traceback():
    result = subprocess.run(
        [sys.executable, "-m", "mgs_trl.train", "miniature", "stratgy=mixed"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: recipe has the unknown key 'stratgy'")
    assert "Traceback" not in result.stderr


def test_errors_that_are_not_the_users_keep_their_traceback(command, monkeypatch):
    monkeypatch.setattr("mgs_trl.build.combine", lambda parts: [].index(0))
    with pytest.raises(ValueError, match="not in list"):
        main(command)


def test_an_override_after_resume_is_an_override():
    arguments = _parse(["miniature", "--resume", "trainer.max_steps=3"])
    assert (arguments.overrides, arguments.resume) == (["trainer.max_steps=3"], "last")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--check", "--ranks", "0"], "--ranks is 0, but it must be at least 1"),
        (["--check", "--ranks", "-2"], "--ranks is -2, but it must be at least 1"),
        (["--ranks", "2"], "--ranks is 2 without --check, but a training has the ranks of its launch"),
    ],
)
def test_ranks_are_numbers_to_plan_for(arguments, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["miniature", *arguments])
    assert capsys.readouterr().err.endswith(f"error: {sentence}\n")


@pytest.mark.parametrize(
    ("verb", "required"),
    [("train", "recipe"), ("generate", "recipe"), ("score", "recipe, completions"), ("study.__main__", "recipe")],
)
def test_only_what_must_be_given_is_called_required(verb, required, capsys):
    command = importlib.import_module(f"mgs_trl.{verb}").main
    with pytest.raises(SystemExit, match="2"):
        command([])
    assert capsys.readouterr().err.endswith(f"the following arguments are required: {required}\n")


@pytest.mark.parametrize("resume", [[], ["--resume"], ["--resume", "out/checkpoint-3"], ["--resume=out/checkpoint-3"]])
def test_the_command_that_goes_on_is_the_one_that_was_given(monkeypatch, resume):
    """With its launcher and number of processes; --resume then means the last checkpoint."""
    given = ["accelerate", "launch", "--num_processes", "8", "-m", "mgs_trl.train", "my recipe.yaml", "trainer.seed=1"]
    monkeypatch.setenv(COMMAND, shlex.join([*given, *resume]))
    assert shlex.split(_again(_parse([*given[6:], *resume]))) == [*given, "--resume"]


def test_only_checkpoints_of_the_same_run_are_resumed(tmp_path, command, capsys):
    """A run that is started anew in the directory of another does not go on from the other's last checkpoint."""
    unseen = [f"~domains.{name}.eval_dataset" for name in DOMAINS]
    steps = [*command, *unseen, f"trainer.output_dir={tmp_path}", "trainer.save_strategy=steps", "trainer.save_steps=1"]
    assert main([*steps, "trainer.max_steps=3"]) == 0
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert main([*steps, "trainer.max_steps=2"]) == 0
    assert (tmp_path / "checkpoint-3").is_dir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert main([*steps, "trainer.max_steps=4", "--resume"]) == 0
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    launches = json.loads((tmp_path / "run.json").read_text())["launches"]
    assert [launch["from_step"] for launch in launches] == [0, 2]
    assert [launch["max_steps"] for launch in launches] == [2, 4]
    capsys.readouterr()
    assert main([*steps, "trainer.max_steps=3", "--resume"]) == 2
    assert "checkpoint to resume is of step 4, but the run ends with step 3" in sentence(capsys)
    assert json.loads((tmp_path / "run.json").read_text())["launches"] == launches
    for path in tmp_path.glob("checkpoint-*/run_id"):
        path.write_text("another")
    assert main([*steps, "--resume"]) == 2
    assert "no checkpoint of this run" in capsys.readouterr().err


UNSEEN = [f"~domains.{name}.eval_dataset" for name in DOMAINS]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([*UNSEEN, "trainer.eval_strategy=epoch"], ["trainer.eval_strategy is 'epoch'", "eval_dataset"]),
        (["trainer.domain_weights={math: 1, chta: 2}"], ["domain_weights", "chta"]),
        (["trainer.domain_weights={math: 1, 2: 1}"], ["domain_weights has the key 2", "in quotes"]),
        (["strategy={fixed_weights: {weights: {math: 1}}}"], ["domain_weights", "['math']"]),
        (["strategy={single: {domain: math}}", "trainer.domain_weights={math: 1, chat: 2}"], ["domain_weights"]),
        (["trainer.loss_type=grppo"], ["loss_type", "'grppo'"]),
        (["trainer.optim=galore_adamw_layerwise"], ["optim", "during backward"]),
        (["trainer.scale_rewards=batchh"], ["scale_rewards", "'batchh'", "Did you mean 'batch'?"]),
        (["trainer.report_to=wandbb"], ["wandbb is not supported"]),
        (["trainer.accelerator_config={split_batche: true}"], ["split_batche"]),
        (["trainer.num_iterations=0"], ["num_iterations is 0", "at least 1"]),
        (["trainer.gradient_accumulation_steps=0"], ["gradient_accumulation_steps is 0", "at least 1"]),
        (["trainer.learning_rate=-1"], ["learning_rate is -1", "0 or more"]),
        (["trainer.beta=-0.1"], ["beta is -0.1", "0 or more"]),
        (["trainer.entropy_coef=nan"], ["entropy_coef is nan", "must be a number"]),
        (["trainer.epsilon_high=inf"], ["epsilon_high is inf", "finite and 0 or more"]),
        (["trainer.adam_epsilon=0"], ["adam_epsilon is 0", "greater than 0"]),
        (["trainer.delta=-1"], ["delta is -1", "greater than 0"]),
        (["trainer.ref_model_sync_steps=0"], ["ref_model_sync_steps is 0", "at least 1"]),
        (["trainer.steps_per_generation=0"], ["steps_per_generation is 0", "at least 1"]),
        (["trainer.importance_sampling_level=tokens"], ["'tokens'", "Did you mean 'token'?"]),
        (
            ["trainer.multi_objective_aggregation=normalise_then_sum"],
            ["'normalise_then_sum'", "Did you mean 'normalize_then_sum'?"],
        ),
        (["trainer.num_train_epochs=-1"], ["num_train_epochs is -1", "0 or more"]),
        (["trainer.neftune_noise_alpha=-1"], ["neftune_noise_alpha is -1", "0 or more"]),
        (["trainer.logging_steps=-0.5"], ["logging_steps is -0.5", "0 or more"]),
        (["trainer.num_generations=0"], ["num_generations is 0", "at least 2"]),
        (["trainer.per_device_eval_batch_size=0"], ["per_device_eval_batch_size is 0", "at least 1"]),
        (["trainer.eval_accumulation_steps=0"], ["eval_accumulation_steps is 0", "at least 1"]),
        (["trainer.pad_to_multiple_of=0"], ["pad_to_multiple_of is 0", "at least 1"]),
        (["trainer.top_entropy_quantile=-1"], ["top_entropy_quantile is -1", "from 0 to 1"]),
        (["trainer.top_k=-1"], ["top_k is -1", "0 for all"]),
        (["trainer.log_level_replica=debgu"], ["'debgu'", "Did you mean 'debug'?"]),
        (["trainer.generation_kwargs=stop"], ["generation_kwargs is 'stop'", "a mapping"]),
        (
            ["trainer.lr_scheduler_type=cosine", "trainer.lr_scheduler_kwargs={num_cycle: 2}"],
            ["lr_scheduler_kwargs", "'num_cycle'"],
        ),
        (["trainer.lr_scheduler_type=cosine_with_min_lr"], ["lr_scheduler_kwargs", "min_lr"]),
        (["trainer.cache_implementation=statik"], ["cache_implementation", "statik"]),
        (["trainer.accelerator_config=nowhere.json"], ["nowhere.json"]),
        (["trainer.adam_beta2=1"], ["adam_beta2 is 1", "below 1"]),
        (
            ["trainer.metric_for_best_model=eval_domain/maths/reward"],
            ["'eval_domain/maths/reward'", "Did you mean 'domain/math/reward'?"],
        ),
        (["trainer.metric_for_best_model=rewards/math/mean"], ["Did you mean 'rewards/math/math_verify/mean'?"]),
        ([*UNSEEN, "trainer.metric_for_best_model=domain/math/reward"], ["no domain has an eval_dataset"]),
        (
            ["trainer.lr_scheduler_type=reduce_lr_on_plateau", "trainer.eval_strategy=epoch"],
            ["is 'loss' (the default)", "one of reward, domain/math"],
        ),
        (["trainer.surgery_top_modules=8"], ["surgery_top_modules is 8", "only 7 modules"]),
        (["trainer.surgery_exclude=[attention,mlp,norm,embedding,head]"], ["surgery_exclude is", "act on none"]),
        (["trainer.temperature=0"], ["temperature is 0", "greater than 0"]),
        (["trainer.max_completion_length=0"], ["max_completion_length is 0", "at least 1"]),
        (["trainer.top_p=2"], ["top_p is 2", "at most 1"]),
        (["model.dtype=floot"], ["model.dtype is 'floot'", "bfloat16"]),
        (["peft={r: two, target_modules: all-linear}"], ["'str'"]),
        (["domains.math.verifier={math: {time_limit: long}}"], ["verifier 'math' cannot be made", "'str'"]),
        (["domains.math.verifier={thinking_format: {tags: think}}"], ["tags", "a list", "'think'"]),
    ],
)
@pytest.mark.parametrize("check", [["--check"], []])
def test_what_a_run_refuses_a_check_refuses(command, changes, words, check, capsys):
    assert main([*command, *changes, *check]) == 2
    line = sentence(capsys)
    assert all(word in line for word in words), line


def test_whole_numbers_serve_where_torch_and_transformers_want_floats(command):
    """The second refuses temperature 2 and the first adam_beta1 0, when training has begun."""
    floats = ("adam_beta1=0", "temperature=2", "repetition_penalty=2")
    assert main([*command, *(f"trainer.{setting}" for setting in floats)]) == 0


def test_only_what_is_refused_by_others_and_in_time_becomes_a_sentence():
    def attempt(error, **when):
        with refused("it cannot be", (ValueError,), **when):
            raise error

    with pytest.raises(ValueError, match=r"^it cannot be: of two lines\.$"):
        attempt(ValueError("of two\nlines."))
    with pytest.raises(ValueError, match=r"^late$"):
        attempt(ValueError("late"), applies=lambda: False)
    with pytest.raises(TypeError):
        attempt(TypeError("another"))
    with pytest.raises(ValueError, match="neither a file"), refused("it cannot be", (ValueError,)):
        load_recipe("none")


@pytest.mark.parametrize("steps", [0, 2])
def test_a_check_plans_as_many_steps_as_the_run_takes(command, output, steps):
    command = [*command[:-2], f"trainer.output_dir={output}", f"trainer.max_steps={steps}"]
    assert check(load_recipe(command[0], command[1:])).steps == steps
    assert main(command) == 0
    logged = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert max(entry["step"] for entry in logged) == steps


def test_a_tilde_is_the_home_directory(command, miniature, tmp_path, monkeypatch, capsys):
    """Transformers expands it in output_dir, so what we write there and read again has to lie there too."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    home.mkdir()
    (home / "models").symlink_to(miniature)
    places = ['trainer.output_dir="~/out"', 'model="~/models/policy"', "trainer.save_strategy=steps"]
    places += ['domains.chat.verifier={reward_model: {model: "~/models/reward_model"}}', "trainer.save_steps=1"]
    command = command[:-1]
    assert main([*command, *places, "trainer.max_steps=1"]) == 0
    assert "Held-out reward" in capsys.readouterr().out  # from the log in the directory
    found = {path.name for path in (home / "out").iterdir()}
    assert {"recipe.yaml", "metrics.jsonl", "run.json", "checkpoint-1", "model.safetensors"} <= found
    assert main([*command, *places, "trainer.max_steps=2", "--resume"]) == 0
    assert (home / "out" / "checkpoint-2").is_dir() and not (tmp_path / "~").exists()
    assert mean_weights("~/out").keys() == set(DOMAINS)


def test_what_was_saved_after_the_step_that_a_run_goes_back_to_is_not_resumed(tmp_path, command):
    """The command that it prints when it is interrupted says --resume, which would be the way that was left."""
    unseen = [f"~domains.{name}.eval_dataset" for name in DOMAINS]
    steps = [*command, *unseen, f"trainer.output_dir={tmp_path}", "trainer.save_strategy=steps", "trainer.save_steps=1"]
    assert main([*steps, "trainer.max_steps=4"]) == 0
    back = ["trainer.learning_rate=1e-7", "--resume", str(tmp_path / "checkpoint-1")]
    assert main([*steps, "trainer.max_steps=2", *back]) == 0
    assert (tmp_path / "checkpoint-4").is_dir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_a_resumed_run_says_in_what_its_recipe_differs(command, output, miniature, capsys):
    steps = [*command, *(f"~domains.{name}.eval_dataset" for name in DOMAINS), "trainer.save_strategy=steps"]
    steps.append("trainer.save_steps=1")
    dataset = f"domains.chat.dataset={miniature / 'data' / 'chat_heldout.jsonl'}"

    def warnings(*changes):
        capsys.readouterr()
        assert main([*steps, *changes]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]

    assert warnings("trainer.max_steps=1") == []
    assert warnings("--resume", "trainer.max_steps=2", "trainer.logging_steps=2") == []
    [line] = warnings("--resume", "trainer.max_steps=3", "trainer.seed=7", "strategy=mixed", dataset)
    keys = ("domains.chat.dataset.path", "strategy", "trainer.seed")
    assert line == f"warning: the run goes on with another {', '.join(keys)} than in {output / 'recipe.yaml'}."


def run(command, miniature, log):
    environment = {**os.environ, "MGS_TRL_MINIATURE": str(miniature), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "mgs_trl.train", *command]
    return subprocess.Popen(arguments, env=environment, stdout=log, stderr=subprocess.STDOUT)


def windows(path):
    """What each step's Gramians are: they tell which prompts and completions a step had."""
    return {row["step"]: row["gramian"] for row in map(json.loads, (path / "conflicts.jsonl").read_text().splitlines())}


@pytest.mark.slow
def test_interrupted_and_resumed_runs_as_if_nothing_had_happened(miniature, tmp_path):
    """The windows after resuming are those of a run that was never stopped (issue: Interrupted and resumed)."""
    whole, broken, log = tmp_path / "whole", tmp_path / "broken", tmp_path / "log.txt"
    arguments = ["miniature", *SMALL, "trainer.max_steps=30"]
    with log.open("w") as file:
        assert run([*arguments, f"trainer.output_dir={whole}"], miniature, file).wait(300) == 0
    arguments.append(f"trainer.output_dir={broken}")
    with log.open("w") as file:
        process = run(arguments, miniature, file)
        while process.poll() is None and "step 2:" not in log.read_text():
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 128 + signal.SIGTERM
    text = log.read_text()
    step = int(
        re.search(r"stopped after step (\d+); resume with: python\S* -m mgs_trl.train miniature .*--resume", text)[1]
    )
    assert 2 <= step < 30
    assert (broken / f"checkpoint-{step}").is_dir()
    with log.open("w") as file:
        assert run([*arguments, "--resume"], miniature, file).wait(300) == 0
    expected, found = windows(whole), windows(broken)
    assert sorted(found) == sorted(expected) == list(range(1, 31))
    for number, gramian in expected.items():
        np.testing.assert_allclose(found[number], gramian, rtol=1e-5, atol=1e-9, err_msg=f"step {number}")


def test_the_first_signal_stops_after_the_step_and_the_second_at_once():
    stop, control, arguments = StopOnSignal(), TrainerControl(), SimpleNamespace(device="cpu")
    before = signal.getsignal(signal.SIGINT)
    stop.on_train_begin(arguments, None, control)
    stop.on_step_end(arguments, None, control)
    assert not control.should_training_stop
    signal.raise_signal(signal.SIGINT)
    stop.on_step_end(arguments, None, control)
    assert (stop.received, control.should_training_stop, control.should_save) == (signal.SIGINT, True, True)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    stop.on_train_end(arguments, None, control)
    assert signal.getsignal(signal.SIGINT) is before
