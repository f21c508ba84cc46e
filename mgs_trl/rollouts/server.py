"""One vLLM server as the trainer sees it: health, weights, completions. Every failure names the URL."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from mgs_trl.rollouts.errors import ServerError
from mgs_trl.rollouts.settings import ServerSettings
from mgs_trl.rollouts.weight_directory import BACKEND, WeightVersion

MOST_REQUESTS = 256  # at a time, per server; more wait here instead of in the server's queue
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # seconds between two attempts, doubling
FAILED_ROUNDS = 3  # attempts that a server may answer with an error of its own


class Lost(Exception):
    """The server went away or failed; it may come back."""


class Server:
    """A vLLM server started by `python -m mgs_trl.serve`.

    Args:
        url: its base URL.
        settings: timeouts.
        model: the name it serves the policy under; told by `connect` too.
    """

    def __init__(self, url: str, settings: ServerSettings, model: str = ""):
        self.url, self.settings = url.rstrip("/"), settings
        # A new connection for every request: a kept one may be reset while it is used, by a server that closes idle
        # connections, was restarted, or answered an error before.
        limits = httpx.Limits(max_connections=MOST_REQUESTS, max_keepalive_connections=0)
        self._http = httpx.Client(limits=limits)
        self.version: str | None = None  # label of the weights it should have
        self._weights: WeightVersion | None = None
        self.model = model
        self.context = 0  # tokens of a prompt and its completion; told by `connect`

    def connect(self) -> None:
        """Wait until it answers, and see that it can take weights.

        Raises:
            ServerError: it does not answer in time, or was started without the weight transfer.
        """
        self.wait()
        info = self.info()
        backend = (info.get("weight_transfer_config") or {}).get("backend")
        if backend != BACKEND:
            raise ServerError(
                f"the vLLM server at {self.url} has the weight transfer {backend!r}, but this run needs "
                f"{BACKEND!r}; start it with `python -m mgs_trl.serve`."
            )
        self.context = info["model_config"]["max_model_len"]
        self.model = self._call("GET", "/v1/models", self.settings.timeout)["data"][0]["id"]

    def wait(self) -> None:
        """Wait until it is healthy, for `timeout` seconds at most.

        Raises:
            ServerError: it is not.
        """
        deadline, pause = time.monotonic() + self.settings.timeout, FIRST_WAIT
        while True:
            left = deadline - time.monotonic()
            try:
                if left > 0 and self._http.get(f"{self.url}/health", timeout=min(left, 10.0)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            left = deadline - time.monotonic()
            if left <= 0:
                raise ServerError(
                    f"no vLLM server answered at {self.url} within {self.settings.timeout:g} seconds "
                    "(server.timeout); is it running?"
                )
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_WAIT)

    def info(self) -> dict[str, Any]:
        """vLLM's resolved configuration.

        Raises:
            ServerError: it does not tell.
        """
        try:
            path = "/server_info?config_format=json"
            return self._call("GET", path, self.settings.timeout)["vllm_config"]
        except (ServerError, Lost) as error:
            raise ServerError(f"{error} Start it with `python -m mgs_trl.serve`.") from None

    def push(self, weights: WeightVersion, label: str) -> None:
        """Have it load a version, again if it is lost meanwhile.

        Args:
            label: what it shall call the version; unlike any other version's.

        Raises:
            ServerError: it cannot, or not in time.
        """
        self._weights, self.version = weights, label
        self._repeat(self._push_once, "load weights")

    def generate(self, bodies: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Completions of requests, all by the weights pushed last.

        Args:
            bodies: requests to `/v1/completions`, without `model`.

        Returns:
            The choices of each request. A request that failed because the server was lost is made again; one that
            was answered is not.

        Raises:
            ServerError: the server is lost for good, refuses a request, or takes too long.
        """
        answers: dict[int, list[dict[str, Any]]] = {}
        deadline = time.monotonic() + self.settings.generate_timeout

        def attempt() -> None:
            if self._label() != self.version:
                self._push_once()  # it was restarted
            pending = [index for index in range(len(bodies)) if index not in answers]
            with ThreadPoolExecutor(max_workers=min(MOST_REQUESTS, len(pending))) as threads:
                found = list(threads.map(lambda index: self._complete(bodies[index], deadline), pending))
            # A server that was restarted within this attempt may have answered with its first weights.
            if self._label() != self.version:
                raise Lost(f"the vLLM server at {self.url} was restarted while it generated.")
            answers.update({index: value for index, value in zip(pending, found, strict=True) if value is not None})
            if len(answers) < len(bodies):
                raise Lost(f"the vLLM server at {self.url} answered {len(answers)} of {len(bodies)} requests.")

        if bodies:
            self._repeat(attempt, "generate")
        return [answers[index] for index in range(len(bodies))]

    def prompt_logps(self, tokens: list[int]) -> list[float]:
        """Log-probability of each of `tokens` but the first, given those before it. Length n - 1."""
        body = {"prompt": tokens, "max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0, "model": self.model}
        try:
            choice = self._call("POST", "/v1/completions", self.settings.timeout, body)["choices"][0]
        except Lost as error:
            raise ServerError(f"{error} (while the weights were checked)") from None
        rows = choice["prompt_logprobs"][1:]
        return [row[str(token)]["logprob"] for row, token in zip(rows, tokens[1:], strict=True)]

    def _push_once(self) -> None:
        assert self._weights is not None and self.version is not None
        limit = self.settings.sync_timeout
        update = {"number": self._weights.number, "path": str(self._weights.path)}
        try:
            self._call("POST", "/start_weight_update", limit, {}, "sync_timeout")
        except Lost:
            # An update whose second request never came is still open; it holds nothing.
            self._call("POST", "/finish_weight_update", limit, {}, "sync_timeout")
            self._call("POST", "/start_weight_update", limit, {}, "sync_timeout")
        self._call("POST", "/update_weights", limit, {"update_info": update}, "sync_timeout")
        self._call("POST", "/finish_weight_update", limit, {"weight_version": self.version}, "sync_timeout")
        self._call("POST", "/reset_prefix_cache", limit, {}, "sync_timeout")

    def _label(self) -> str:
        return self._call("GET", "/weight_info", self.settings.timeout)["weight_version"]

    def _complete(self, body: dict[str, Any], deadline: float) -> list[dict[str, Any]] | None:
        path, field = "/v1/completions", "generate_timeout"
        left = deadline - time.monotonic()  # now that it is this request's turn
        if left <= 0:
            raise ServerError(self._too_late(path, field))
        try:
            return self._call("POST", path, left, {"model": self.model, **body}, field)["choices"]
        except Lost:
            return None

    def _repeat(self, attempt: Any, what: str) -> None:
        """Until it succeeds; a server may be away for `timeout` seconds, but not be there and fail for ever."""
        failures, pause = 0, FIRST_WAIT
        while True:
            try:
                return attempt()
            except Lost as error:
                self.wait()
                failures += 1
                if failures > FAILED_ROUNDS:
                    raise ServerError(f"could not {what} in {failures} attempts: {error}") from None
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_WAIT)

    def _call(self, method: str, path: str, limit: float, body: Any = None, field: str = "timeout") -> Any:
        """One request.

        Raises:
            Lost: no connection, or an error of the server's.
            ServerError: it took longer than `limit` seconds, or the request is refused.
        """
        try:
            response = self._http.request(method, self.url + path, json=body, timeout=httpx.Timeout(limit, pool=None))
        except httpx.ConnectTimeout as error:
            raise Lost(f"the vLLM server at {self.url} does not take connections: {error}") from None
        except httpx.TimeoutException:
            raise ServerError(self._too_late(path.split("?")[0], field)) from None
        except httpx.HTTPError as error:
            raise Lost(f"the connection to the vLLM server at {self.url} broke: {error}") from None
        if response.status_code >= 500:
            raise Lost(
                f"the vLLM server at {self.url} answered {path} with {response.status_code}: {_reason(response)}"
            )
        if response.status_code != 200:
            raise ServerError(
                f"the vLLM server at {self.url} refused {path} with {response.status_code}: {_reason(response)}"
            )
        return response.json()

    def _too_late(self, what: str, field: str) -> str:
        limit = getattr(self.settings, field)
        return f"the vLLM server at {self.url} did not answer {what} within {limit:g} seconds (server.{field})."


def _reason(response: httpx.Response) -> str:
    return " ".join(response.text.split())[:500]
