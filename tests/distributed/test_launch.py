"""R7: `accelerate launch --config_file examples/accelerate/...` trains with the engine it names, changed by nothing but
what a machine without GPUs needs."""

import os
import subprocess
import sys

import pytest
import yaml

from tests.distributed.launch import ROOT

ENGINE = {
    "single": "1 LocalEngine",
    "zero1": "2 PartitionedEngine",
    "zero2": "2 PartitionedEngine",
    "zero3": "2 Zero3Engine",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINE)
def test_configuration_trains_with_its_engine(tiny_policy, tmp_path, name):
    settings = yaml.safe_load((ROOT / f"examples/accelerate/{name}.yaml").read_text())
    settings |= {"mixed_precision": "no", "use_cpu": True, "num_processes": int(ENGINE[name][0])}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    script = str(ROOT / "tests/distributed/train_once.py")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    environment |= {"DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, script, tiny_policy, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "engine.txt").read_text() == ENGINE[name]
