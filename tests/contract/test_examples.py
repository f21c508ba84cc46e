"""Every example runs, and stays short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short(example):
    assert len(example.read_text().splitlines()) < 60


def test_drop_in(tiny_policy, tmp_path):
    output = run("drop_in.py", "--model", tiny_policy, "--max-steps", "2", "--no-bf16", "--output-dir", str(tmp_path))
    assert "conflict/instruction_following~math/cosine" in output
    assert "domain/math/reward" in output


def test_custom_loop():
    output = run("custom_loop.py")
    assert output.count("surgery removed") == 4
