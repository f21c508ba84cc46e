"""What a check says of launches: of ZeRO-3, of policies that could not be saved, of evaluations that split groups."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from mgs_trl import MGSConfig, MGSTrainer
from mgs_trl.ranks.layout import check_launch, check_processes, check_saves_whole, check_tensor_parallel
from mgs_trl.train import main
from tests.support.rollouts import prompts, reward
from tests.unit.recipes.test_train import SMALL


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ("--cpu --num_processes 2", 2),
        ("--num-processes=3 --cpu", 3),
        ("--config_file {file} --cpu", 4),
        ("--config_file {file} --cpu --num_processes 1", None),
        ("--config_file {file}", None),
        ("--cpu", None),
        ("--num_processes 2", None),
    ],
)
def test_processes_that_accelerate_would_not_start_are_refused(tmp_path, options, refused):
    (tmp_path / "ddp.yaml").write_text("num_processes: 4\n")
    command = (
        f"accelerate launch {options.format(file=tmp_path / 'ddp.yaml')} -m mgs_trl.train miniature trainer.seed=1"
    )
    check_processes(command, {"WORLD_SIZE": "2"})  # they have been started
    check_processes(command.replace("accelerate launch", "python"), {})
    if refused is None:
        check_processes(command, {})
        return
    with pytest.raises(ValueError, match=f"{refused} processes and --cpu"):
        check_processes(command, {})


GATHER = "stage3_gather_16bit_weights_on_model_save"


@pytest.fixture
def config(tmp_path):
    def make(zero):
        made = MGSConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[])
        made.deepspeed = {"zero_optimization": zero}  # read as it is given; DeepSpeed itself stays out of this process
        return made

    return make


@pytest.mark.parametrize(
    ("zero", "environment"),
    [
        ({"stage": 2}, {}),
        ({"stage": 3, GATHER: True}, {}),
        ({"stage": 3, GATHER: "auto"}, {"ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"}),
    ],
)
def test_launches_that_save_a_whole_policy(config, zero, environment):
    check_saves_whole(config(zero), environment)


@pytest.mark.parametrize("zero", [{"stage": 3}, {"stage": 3, GATHER: False}, {"stage": 3, GATHER: "auto"}])
def test_zero3_must_gather_what_it_saves(config, zero):
    with pytest.raises(ValueError, match=f"{GATHER} is .*set it to true"):
        check_saves_whole(config(zero), {})


def test_accelerates_own_variables_are_read(config):
    asked = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
    made = config({})
    made.deepspeed = None
    with pytest.raises(ValueError, match="zero3_save_16bit_model: true"):
        check_saves_whole(made, asked)
    check_saves_whole(made, {**asked, "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"})


def test_a_check_plans_for_zero3(miniature, tmp_path, capsys):
    """transformers would build the model in pieces, on ranks that a check does not have."""
    file = tmp_path / "zero3.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 3, GATHER: True}}))
    assert main(["miniature", "--check", "rollout=transformers", f"trainer.deepspeed={file}"]) == 0
    shown = capsys.readouterr().out
    assert "memory per rank" in shown and "not known" not in shown


def test_a_check_names_evaluation_batches_that_split_groups(miniature, capsys):
    """Recipes evaluate whatever `eval_strategy` says; TRL would find out after training."""
    assert main(["miniature", "--check", "rollout=transformers", "trainer.num_generations_eval=7"]) == 2
    assert "per_device_eval_batch_size is 192" in capsys.readouterr().err
    assert main(["miniature", "--check", "rollout=transformers", "trainer.num_generations_eval=16"]) == 0


@pytest.mark.parametrize("ranks, size, fits", [(8, 2, True), (4, 4, True), (1, 2, False), (3, 2, False), (8, 0, False)])
def test_tensor_parallel_engines_need_whole_groups_of_ranks(capsys, ranks, size, fits):
    """As TRL says when it makes the engine, which is after it has loaded the policy."""
    command = ["math_chat_if", f"trainer.vllm_tensor_parallel_size={size}", "--check", "--ranks", str(ranks)]
    data = Path(__file__).parents[3] / "examples" / "data"
    files = {"math": "simplerl_level3to5", "chat": "wildchat_if", "instruction_following": "nemotron_if"}
    local = [f"domains.{name}.dataset={data / file}.jsonl" for name, file in files.items()]
    code = main([*command, *local, f"trainer.gradient_accumulation_steps={16 if ranks < 8 else 4}"])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    expected = f"error: vllm_tensor_parallel_size is {size}, but with vLLM in the training processes it must divide "
    assert (code, errors) == ((0, []) if fits else (2, [f"{expected}the number of ranks, which is {ranks}."]))


def test_tensor_parallelism_of_a_server_is_the_servers(tmp_path):
    config = MGSConfig(str(tmp_path), use_cpu=True, bf16=False, vllm_tensor_parallel_size=2)
    for changes in ({"use_vllm": False}, {"use_vllm": True, "vllm_mode": "server"}):
        vars(config).update(changes)
        check_tensor_parallel(config)


@pytest.mark.parametrize(
    ("changes", "gpus", "message"),
    [
        ({"use_vllm": True, "vllm_tensor_parallel_size": 2, "use_cpu": True}, 0, r"^vllm_tensor_parallel.* 1\.$"),
        ({}, 2, r"^2 GPUs are visible to a single process, .*`accelerate launch`.*CUDA_VISIBLE_DEVICES\.$"),
    ],
)  # fmt: skip
def test_a_launch_that_cannot_train_is_refused_before_the_policy_is_loaded(
    miniature, tmp_path, monkeypatch, capsys, changes, gpus, message
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)  # transformers counts so
    args = MGSConfig(str(tmp_path), bf16=False, **changes)
    with pytest.raises(ValueError, match=message):
        MGSTrainer("no/such/policy", reward, args, prompts(4))
    monkeypatch.setattr("mgs_trl.build.load_data", None)
    rollout = "vllm" if changes.pop("use_vllm", False) else "transformers"
    small = [*SMALL, f"rollout={rollout}", "trainer.use_cpu=false", f"trainer.output_dir={tmp_path}"]
    assert main(["miniature", *small, *(f"trainer.{name}={value}" for name, value in changes.items())]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(message, line.removeprefix("error: ")), line


def test_a_policy_that_is_split_over_gpus_needs_one_process(tmp_path, monkeypatch):
    """Transformers then makes one model of them, not copies."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    config = MGSConfig(str(tmp_path), bf16=False)
    check_launch(config, SimpleNamespace(hf_device_map={"model.embed_tokens": 0, "lm_head": 1}))
    with pytest.raises(ValueError, match="2 GPUs"):
        check_launch(config, SimpleNamespace(hf_device_map={"": 0}))
    config.model_init_kwargs = {"device_map": "auto"}
    check_launch(config, "some/policy")
