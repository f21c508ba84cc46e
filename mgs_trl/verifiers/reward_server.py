"""A reward model behind a URL: connection pool, timeouts, retries, circuit breakers, several replicas."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import urlparse

from mgs_trl.verifiers.base import Batch, Score
from mgs_trl.verifiers.circuit import Replicas
from mgs_trl.verifiers.completions import Message
from mgs_trl.verifiers.errors import VerifierError
from mgs_trl.verifiers.reward_api import APIS, BadResponse
from mgs_trl.verifiers.reward_scale import ScaledVerifier, conversation

TOO_MANY = 429
RETRIED_STATUS = (408, 425, TOO_MANY)  # besides every 5xx


class ServerError(Exception):
    """No score for a sample after all attempts."""


class Attempt(NamedTuple):
    """How one request ended: its score, or what went wrong, whether another may help, and whether the server
    is well (then its breaker does not count the failure)."""

    score: float | None
    problem: str = ""
    retry: bool = False
    well: bool = True


class RewardServerVerifier(ScaledVerifier):
    """The score of a reward model served over HTTP, one request per row, `concurrency` of them at a time.

    `url`: address of the server, or a list of replicas. `api`: "vllm_classify", "vllm_pooling", "tei" or
    "json" (reward_api.py). `timeout`: seconds for one request. `retries`: attempts after the first, on
    another replica where there is one, `backoff` seconds apart, doubling up to 8 s. `breaker_failures`
    failures in a row leave a replica alone for `breaker_pause` seconds; those within `backoff` seconds count
    as one, and status 429 as none. With all replicas left alone a sample fails at once. A sample without a
    score raises, or by `on_error: none` scores None and is counted.
    """

    label = "reward_server"

    def __init__(
        self,
        domain: str | Sequence[str] | None = None,
        *,
        url: str | Sequence[str] = (),
        api: str = "vllm_classify",
        model: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        backoff: float = 0.5,
        concurrency: int = 16,
        breaker_failures: int = 8,
        breaker_pause: float = 30.0,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(domain, **options)
        urls = [url] if isinstance(url, str) else list(url)
        if not urls or not all(isinstance(one, str) and _is_address(one) for one in urls):
            raise ValueError(f"url must be an http(s) address or a list of them, got {url!r}")
        if api not in APIS:
            raise ValueError(f"api must be one of {', '.join(APIS)}, got {api!r}")
        counts = {"retries": retries, "concurrency": concurrency, "breaker_failures": breaker_failures}
        for name, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        positive = {"timeout": timeout, "concurrency": concurrency, "breaker_failures": breaker_failures}
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}")
        for name, value in {"retries": retries, "backoff": backoff, "breaker_pause": breaker_pause}.items():
            if not value >= 0:
                raise ValueError(f"{name} must be zero or more, got {value!r}")
        if headers is not None and not (
            isinstance(headers, dict) and all(isinstance(text, str) for pair in headers.items() for text in pair)
        ):
            raise ValueError(f"headers must map names to texts, got {headers!r}")
        self.urls, self.api, self.model = ([one.rstrip("/") for one in urls], APIS[api], model)
        self.timeout, self.retries, self.backoff, self.concurrency = (timeout, retries, backoff, concurrency)
        self.headers = dict(headers or {})
        self.replicas = Replicas(self.urls, breaker_failures, breaker_pause, spacing=backoff)
        self._client: Any = None
        self._client_lock = threading.Lock()

    @property
    def client(self) -> Any:
        """The HTTP client with its connection pool, made at the first request."""
        import httpx

        with self._client_lock:
            if self._client is None:
                limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
                self._client = httpx.Client(timeout=self.timeout, limits=limits, headers=self.headers)
            return self._client

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def preflight(self) -> None:
        """Score one conversation; raises VerifierError when no replica answers with a number."""
        try:
            self._request([{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}])
        except ServerError as error:
            raise VerifierError(f"verifier {self.__name__!r} gets no score from its reward server: {error}") from None

    def _score(self, batch: Batch) -> list[Score]:
        conversations = [conversation(batch, index) for index in batch.indices]
        with ThreadPoolExecutor(min(self.concurrency, len(conversations))) as threads:
            futures = [threads.submit(self._request, messages) for messages in conversations]
            scores: list[Score] = []
            try:
                for index, future in zip(batch.indices, futures, strict=True):
                    try:
                        scores.append(future.result())
                    except ServerError as error:
                        scores.append(batch.error(index, str(error)))
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
        return scores

    def _request(self, messages: list[Message]) -> float:
        """The score of one conversation; raises ServerError after the last attempt."""
        problem, previous = "no attempt", None
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(8.0, self.backoff * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25))
            request = self.replicas.acquire(avoid=previous)
            if request is None:
                raise ServerError(f"all {len(self.urls)} reward servers keep failing, circuit open, last: {problem}")
            url, well = request.replica.url, False
            try:
                score, trouble, retry, well = self._attempt(url, messages)
            finally:
                self.replicas.release(request, well)
            if score is not None:
                return score
            previous, problem = url, f"{url}: {trouble}"
            if not retry:
                break
        raise ServerError(problem)

    def _attempt(self, url: str, messages: list[Message]) -> Attempt:
        import httpx

        try:
            response = self.client.post(url + self.api.path, json=self.api.request(messages, self.model))
            status = response.status_code
            if status >= 500 or status in RETRIED_STATUS:
                return Attempt(None, f"status {status}", retry=True, well=status == TOO_MANY)
            if status >= 400:  # a refused request is the caller's fault and says nothing about the server
                return Attempt(None, f"status {status}: {response.text[:200]}")
            return Attempt(self.api.score(response.json()))
        except httpx.HTTPError as error:
            return Attempt(None, f"{type(error).__name__}: {error}", retry=True, well=False)
        except (BadResponse, ValueError, RecursionError) as error:
            return Attempt(None, f"no score in the response, {error}"[:300], retry=True, well=False)


def _is_address(url: str) -> bool:
    try:
        parts = urlparse(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, or half of an IPv6 address
        return False
