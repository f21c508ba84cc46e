"""Starts real processes under torchrun and reads what they wrote."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What one case left behind."""

    folder: Path

    def file(self, name: str) -> Path:
        """A file that rank 0 or each rank wrote.

        Raises:
            RuntimeError: the case failed; with the traceback of each rank that did.
        """
        path = self.folder / name
        errors = sorted(self.folder.glob("error_*.txt"))
        if errors or not path.exists():
            text = "\n".join(f"{error.name}: {error.read_text()}" for error in errors)
            raise RuntimeError(f"{self.folder.name} did not finish:\n{text}")
        return path

    @cached_property
    def parameters(self) -> dict[str, torch.Tensor]:
        return torch.load(self.file("parameters.pt"), weights_only=True)

    @cached_property
    def conflicts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file("conflicts.jsonl").read_text().splitlines()]

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        return json.loads(self.file("log.json").read_text())

    def gramians(self) -> torch.Tensor:
        """float64 `[steps, M, T, T]`."""
        return torch.tensor([line["gramian"] for line in self.conflicts], dtype=torch.float64)

    def grad_norms(self) -> torch.Tensor:
        return torch.tensor([entry["grad_norm"] for entry in self.log if "grad_norm" in entry], dtype=torch.float64)

    def shards(self, rank: int) -> dict[int, list[tuple[str, torch.Tensor]]]:
        return torch.load(self.file(f"shards_{rank}.pt"), weights_only=True)

    def collectives(self) -> dict[str, list[int]]:
        return json.loads(self.file("collectives.json").read_text())

    def error(self, rank: int) -> str:
        return (self.folder / f"error_{rank}.txt").read_text()


def launch(cases: Sequence[dict[str, Any]], ranks: int, model: str, out: Path, timeout: int = 900) -> dict[str, Result]:
    """Train `cases` in one spawn of `ranks` processes; a dictionary of results by name."""
    out.mkdir(exist_ok=True, parents=True)
    file = out / f"cases_{ranks}.json"
    file.write_text(json.dumps(list(cases)))
    folder = out / f"ranks_{ranks}"
    start = [sys.executable]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [*start, str(ROOT / "tests/distributed/worker.py"), str(file), model, str(folder)]
    log = out / f"output_{ranks}.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = f"no end within {timeout} s"
        finally:
            if process.poll() is None:
                _end(process)
    if code and not folder.exists():
        raise RuntimeError(f"{ranks} ranks ended with {code}:\n{log.read_text()[-4000:]}")
    return {case["name"]: Result(folder / case["name"]) for case in cases}


def _end(process: subprocess.Popen) -> None:
    """torchrun ends its ranks, which have sessions of their own, on SIGTERM only."""
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
