"""R7: the documented commands train a recipe with the engine they name, changed by nothing but what a machine without
GPUs needs.

Which engine it was is read from the checkpoint that the engine wrote: DeepSpeed puts its stage and its configuration
there, FSDP the whole policy in a file of its own. fsdp2.yaml needs GPUs, so accelerate is made to take it without; that
it is refused otherwise is in tests/unit/engines/test_support.py.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.distributed.launch import ROOT
from tests.support.reference import relative_error
from tests.unit.recipes.conftest import make_directory

pytestmark = pytest.mark.slow

YAML_STAGES = {"single": 0, "ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3, "zero3_offload": 3, "fsdp2": 0}
STAGES = {**YAML_STAGES, "torchrun": 0, "torchrun_json": 2}
RECIPE = """
model: {root}/policy
domains:
  math: {{dataset: {root}/data/math_train.jsonl, verifier: {verifier}}}
  chat: {{dataset: {root}/data/chat_train.jsonl, verifier: {verifier}}}
  instruction_following: {{dataset: {root}/data/instruction_following_train.jsonl, verifier: {verifier}}}
strategy: mgs
rollout: transformers
trainer:
  output_dir: {root}/out
  max_steps: 2
  num_generations: 4
  per_device_train_batch_size: {batch}
  gradient_accumulation_steps: 3
  max_completion_length: 6
  bf16: false
  gradient_checkpointing: false
  save_strategy: steps
  save_steps: 2
  logging_steps: 1
"""


def launcher(name: str, folder: Path) -> list[str]:
    """The words of the documented command up to RECIPE."""
    if name not in YAML_STAGES:
        program = ["-m", "mgs_trl.train"] if name == "torchrun" else [str(ROOT / "tests/distributed/train_on_gloo.py")]
        return ["torch.distributed.run", "--standalone", "--nproc_per_node=2", *program]
    settings = yaml.safe_load((ROOT / f"examples/accelerate/{name}.yaml").read_text())
    ranks = 1 if name == "single" else 2
    settings |= {"mixed_precision": "no", "num_processes": ranks, "main_process_port": 0}
    settings |= {"use_cpu": name != "fsdp2"}
    config = folder / "accelerate.yaml"
    config.write_text(yaml.safe_dump(settings))
    program = [str(ROOT / "tests/distributed/train_fsdp_on_cpu.py")] if name == "fsdp2" else ["-m", "mgs_trl.train"]
    return ["accelerate.commands.launch", "--config_file", str(config), *program]


def overrides(name: str, folder: Path) -> list[str]:
    """What docs/engines.md tells machines without GPUs to add; and DeepSpeed's JSON."""
    if name == "fsdp2":
        return ["trainer.ddp_backend=gloo"]
    if STAGES[name] == 0:
        return ["trainer.use_cpu=true"]
    if name in YAML_STAGES:
        return ["trainer.ddp_backend=gloo"]
    keys = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    file = folder / "zero2.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}, **dict.fromkeys(keys, "auto")}))
    return [f"trainer.deepspeed={file}"]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What the command with an engine's name left behind; each is run once."""

    @functools.cache
    def run(name: str) -> Path:
        folder = make_directory(tmp_path_factory.mktemp(name))
        verifier = '{"tests.support.rollouts:reward": {isolated: false}}'
        recipe = folder / "recipe.yaml"
        batch = 8 if name == "single" else 4
        recipe.write_text(RECIPE.format(root=folder, batch=batch, verifier=verifier))
        command = [sys.executable, "-m", *launcher(name, folder), str(recipe)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        environment |= {"DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [*command, *overrides(name, folder)], env=environment, capture_output=True, text=True, timeout=580
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return folder / "out"

    return run


def gramians(output: Path) -> torch.Tensor:
    """float64 `[M, T, T]` of the first step."""
    line = json.loads((output / "conflicts.jsonl").read_text().splitlines()[0])
    assert line["step"] == 1
    return torch.tensor(line["gramian"], dtype=torch.float64)


@pytest.mark.parametrize("name", STAGES)
def test_the_command_trains_with_its_engine(output, name):
    folder = output(name)
    assert (gramians(folder).diagonal(dim1=1, dim2=2).sum(0) > 0).all()
    assert (folder / "model.safetensors").is_file()
    checkpoint = folder / "checkpoint-2"
    ranks = len(list(checkpoint.glob("rng_state*.pth")))
    assert ranks == (1 if name == "single" else 2)
    states = sorted(checkpoint.glob("global_step2/*zero_pp_rank_*_optim_states.pt"))
    if STAGES[name] == 0:
        assert not states
        assert (checkpoint / "optimizer.pt").is_file() == (name != "fsdp2")
        assert (checkpoint / "pytorch_model_fsdp.bin").is_file() == (name == "fsdp2")  # fsdp_state_dict_type, too
        return
    assert len(states) == 2
    saved = torch.load(states[0], weights_only=False, map_location="cpu")
    assert saved["optimizer_state_dict"]["zero_stage"] == STAGES[name]
    zero = saved["ds_config"]["zero_optimization"]
    assert ((zero.get("offload_optimizer") or {}).get("device") == "cpu") == (name == "zero3_offload")


@pytest.mark.parametrize("name", [name for name in STAGES if name not in ("single", "ddp")])
def test_domain_gradients_agree_with_those_of_ddp(output, name):
    """On the first step, where ranks sample the same completions from the same weights."""
    assert relative_error(gramians(output(name)), gramians(output("ddp"))) <= 1e-5
