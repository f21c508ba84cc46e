"""A vLLM server without a model: a completion follows from a request's seed, and weights are a label."""

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ScriptedServer(ThreadingHTTPServer):
    """Refuses, as vLLM does, a request for more tokens than its context holds.

    Attributes:
        logprobs_mode: as it tells it.
        requests: bodies of all completions that were asked for.
    """

    daemon_threads = True

    def __init__(self, context: int):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.context, self.label, self.logprobs_mode = context, "none", "processed_logprobs"
        self.requests: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def scripted_server(context: int) -> Iterator[ScriptedServer]:
    """One that answers until the block ends."""
    with ScriptedServer(context) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_GET(self) -> None:
        model = {"max_model_len": self.server.context, "dtype": "float32"}
        model["logprobs_mode"] = self.server.logprobs_mode
        info = {"weight_transfer_config": {"backend": "mgs_directory"}, "model_config": model}
        answers = {
            "/server_info": {"vllm_config": info},
            "/v1/models": {"data": [{"id": "scripted"}]},
            "/weight_info": {"weight_version": self.server.label},
        }
        self._answer(200, answers.get(self.path.split("?")[0], {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/completions":
            self._complete(body)
            return
        self.server.label = body.get("weight_version", self.server.label)
        self._answer(200, {})

    def _complete(self, body: dict[str, Any]) -> None:
        self.server.requests.append(body)
        if len(body["prompt"]) + body["max_tokens"] > self.server.context:
            self._answer(400, {"error": "more tokens than max_model_len"})
            return
        draw = random.Random(body["seed"])
        written = [[draw.randrange(3, 161) for _ in range(body["max_tokens"])] for _ in range(body["n"])]
        self._answer(200, {"choices": [_choice(tokens) for tokens in written]})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _choice(tokens: list[int]) -> dict[str, Any]:
    none = [None] * len(tokens)
    logprobs = {"tokens": [f"token_id:{token}" for token in tokens], "top_logprobs": none}
    return {"token_ids": tokens, "logprobs": {**logprobs, "token_logprobs": [-1.0] * len(tokens)}}
