"""A real vLLM server on CPU, as a process that tests start, stop and kill."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx


class VLLMServer:
    """`python -m mgs_trl.serve` on a free port.

    Args:
        model: directory of the policy.
        folder: for its log.
        weight_dir: given to the server.
    """

    def __init__(self, model: str, folder: Path, weight_dir: Path | None = None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.model, self.log, self.weight_dir = model, folder / "server.log", weight_dir
        self.process: subprocess.Popen | None = None

    def start(self) -> "VLLMServer":
        """Start it, without waiting."""
        root = Path(__file__).parents[2]
        own = ["--weight-dir", str(self.weight_dir)] if self.weight_dir else []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mgs_trl.serve", self.model, *own, "--port", str(self.port)),
                *("--host", "127.0.0.1", "--enforce-eager", "--dtype", "float32", "--max-model-len", "64"),
            ],
            cwd=root,
            env={
                **os.environ,
                "PYTHONPATH": str(root),
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "HF_HUB_OFFLINE": "1",
                "VLLM_NO_USAGE_STATS": "1",
            },
            stdout=self.log.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def wait(self, seconds: float = 300) -> "VLLMServer":
        """Until it answers, also to what it gathers when first asked: the environment, with pip, for seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process is not None and self.process.poll() is None, self.log.read_text()[-3000:]
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(self.url + "/health", timeout=2).status_code == 200:
                    httpx.get(self.url + "/server_info", timeout=seconds).raise_for_status()
                    return self
            time.sleep(0.3)
        raise TimeoutError(self.log.read_text()[-3000:])

    def signal(self, number: int) -> None:
        """To all its processes."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """At once, as a machine that fails."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def greedy(self, tokens: list[int], count: int = 8) -> list[int]:
        """Its most likely next tokens."""
        body = {"prompt": tokens, "max_tokens": count, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
        body["model"] = self.model
        return httpx.post(self.url + "/v1/completions", json=body, timeout=60).json()["choices"][0]["token_ids"]
