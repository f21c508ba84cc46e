"""Rollouts from vLLM servers that take weights through a shared directory.

`ServedGeneration` stands where TRL's `VLLMGeneration` does. TRL names that class in its trainer's module and calls
`sync_weights` and `generate`; private names used here, verified with trl 1.16.0, are
`trl.trainer.grpo_trainer.VLLMGeneration` and its `_init_vllm` and `_iter_named_params`.
"""

import functools
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import trl.trainer.grpo_trainer as grpo
from accelerate import PartialState
from accelerate.utils import gather_object
from trl.generation.vllm_client import parse_logprobs
from trl.generation.vllm_generation import VLLMGeneration

from mgs_trl.ranks.agreement import from_main_process
from mgs_trl.rollouts.errors import ServerError
from mgs_trl.rollouts.saved_form import as_saved
from mgs_trl.rollouts.server import Server
from mgs_trl.rollouts.settings import ServerSettings
from mgs_trl.rollouts.weight_directory import DEFAULT_NAME, WeightDirectory


class ServedGeneration(VLLMGeneration):
    """Generation on servers, weights over a directory. The main process talks to the servers; what it meets, a result
    or an error, all ranks learn.

    Args:
        settings: servers and timeouts.
        directory: where weights are written.
        seed: of all draws: a completion depends on (seed, step, its place in the step), not on the server's past.
        step: the number of optimizer steps done, asked whenever it matters.
        others: `VLLMGeneration`'s.
    """

    def __init__(
        self,
        *others: Any,
        settings: ServerSettings,
        directory: Path,
        seed: int,
        step: Callable[[], int],
        **named: Any,
    ):
        self.settings, self.seed, self.step = settings, seed, step
        self.directory = WeightDirectory(directory)
        self._run = secrets.token_hex(4)  # tells this run's weights from an earlier run's
        self._synced_step: int | None = None
        self._calls: Counter[str] = Counter()  # since the last synchronization, of each kind
        # Of all ranks' rows, where they differ; given the number of this rank's.
        self.row_requests: Callable[[int], list[dict[str, Any]]] | None = None
        super().__init__(*others, **named)

    def _init_vllm(self) -> None:
        self.servers = [Server(url, self.settings) for url in self.settings.urls]
        self.vllm_client = _Info(self.servers)

        def connect() -> int:
            self._on_servers(lambda server, _: server.connect())
            return min(server.context for server in self.servers)

        self.context: int = from_main_process(self.accelerator, connect)

    def sync_weights(self) -> None:
        """Publish the policy's weights and have every server load them.

        Raises:
            ServerError: a server cannot; on every rank.
        """
        parameters = self._iter_named_params()

        def publish() -> None:
            version = self.directory.publish(as_saved(self.model, parameters))
            label = f"{self._run}:{version.number}"
            self._on_servers(lambda server, _: server.push(version, label))

        def gather_only() -> None:
            for _ in parameters:  # gathering is collective
                pass

        from_main_process(self.accelerator, publish, others=gather_only, finish=gather_only)
        self._synced_step = self.step()
        self._calls.clear()

    def generate(
        self, prompts: list[list[int]], images: Any, num_generations: int, profiler: Any = None
    ) -> tuple[list, list, list | None, list | None]:
        """As in TRL: `prompts` holds each prompt `num_generations` times in a row.

        Raises:
            ServerError: a server is lost for good, or has weights of another step; on every rank.
        """
        if images is not None and any(images):
            raise ValueError("prompts have images, but rollout: server with server.transfer: directory serves text.")
        if self._synced_step != self.step():
            raise ServerError(
                f"the servers have the weights of step {self._synced_step}, but the policy is at step {self.step()}: "
                "their weights were not synchronized."
            )
        all_prompts = gather_object(prompts)
        changes = self.row_requests(len(prompts)) if self.row_requests else [{} for _ in all_prompts]
        with profiler or nullcontext():
            found = from_main_process(
                self.accelerator,
                lambda: self._complete(all_prompts[::num_generations], changes[::num_generations], num_generations),
            )
        self._calls[self._kind()] += 1
        first = self.accelerator.process_index * len(prompts)
        completion_ids, logprobs, token_ids = (
            None if part is None else part[first : first + len(prompts)] for part in found
        )
        return prompts, completion_ids or [], logprobs, token_ids

    def _complete(
        self, prompts: list[list[int]], changes: list[dict[str, Any]], copies: int
    ) -> tuple[list, list | None, list | None]:
        bodies = [
            self._within_context({**self._body(prompt, index, copies), **change})
            for index, (prompt, change) in enumerate(zip(prompts, changes, strict=True))
        ]
        first = [len(bodies) * i // len(self.servers) for i in range(len(self.servers) + 1)]
        parts = self._on_servers(lambda server, i: server.generate(bodies[first[i] : first[i + 1]]))
        choices = [choice for part in parts for answer in part for choice in answer]
        if len(choices) != len(prompts) * copies:
            raise ServerError(f"the servers returned {len(choices)} completions for {len(prompts)} x {copies}.")
        logprobs, token_ids = parse_logprobs([choice["logprobs"] for choice in choices])
        return [choice["token_ids"] for choice in choices], logprobs, token_ids

    def _body(self, prompt: list[int], index: int, copies: int) -> dict[str, Any]:
        kind = self._kind()
        draw = random.Random(f"{self.seed}/{self._synced_step}/{kind}{self._calls[kind]}/{index}")
        body = {
            "prompt": prompt,
            "n": copies,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p or 0.0,
            "repetition_penalty": self.repetition_penalty,
            "max_tokens": self.max_completion_length,
            "logprobs": self.logprobs,
            "seed": draw.getrandbits(48),
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
        if self.structured_outputs_regex is not None:
            body["structured_outputs"] = {"regex": self.structured_outputs_regex}
        return {**body, **self.generation_kwargs}

    def _kind(self) -> str:
        """What a draw is for: whether a step was evaluated must not decide what it is trained on."""
        return "" if self.model.training else "eval/"

    def _within_context(self, body: dict[str, Any]) -> dict[str, Any]:
        """A server refuses to be asked for more than it has room for; an engine of one's own stops there."""
        room = self.context - len(body["prompt"])
        return {**body, "max_tokens": max(1, min(body["max_tokens"] or room, room))}

    def _on_servers(self, act: Callable[[Server, int], Any]) -> list[Any]:
        with ThreadPoolExecutor(max_workers=len(self.servers)) as threads:
            return list(threads.map(act, self.servers, range(len(self.servers))))


class _Info:
    """What TRL's trainer asks its client about."""

    def __init__(self, servers: Sequence[Server]):
        self.servers = servers

    def get_server_info(self) -> dict[str, Any]:
        """Of one server: of one that TRL will warn of, if there is any."""
        every = [server.info() for server in self.servers]
        told_of = [info for info in every if info["model_config"]["logprobs_mode"] != "processed_logprobs"]
        return (told_of or every)[0]


def served_context(generation: VLLMGeneration) -> int | None:
    """Tokens that the smallest server has room for, prompt and completion together; None without servers. Collective.

    Raises:
        ServerError: a server does not tell; on every rank.
    """
    if generation.mode != "server":
        return None
    if isinstance(generation, ServedGeneration):
        return generation.context
    tell = lambda: generation.vllm_client.get_server_info()["model_config"]["max_model_len"]  # noqa: E731
    return from_main_process(generation.accelerator, tell)


@contextmanager
def served(args: Any, step: Callable[[], int]) -> Iterator[None]:
    """While TRL builds its trainer: its generation is ours, if `args.server` asks for it.

    Args:
        args: the run's `MGSConfig`.
        step: the number of optimizer steps done.

    Raises:
        ServerError: a server does not answer within the timeout; before a model is loaded.
    """
    if args.server is None or not args.use_vllm:
        yield
        return
    settings = ServerSettings.parse(args.server)
    if not settings.by_directory(args.device.type == "cuda"):
        [args.vllm_server_base_url], args.vllm_server_timeout = settings.urls, settings.timeout
        yield
        return
    # Before a model is loaded; the other ranks need not reach the servers.
    from_main_process(PartialState(), lambda: [Server(url, settings).connect() for url in settings.urls])
    directory = Path(settings.weight_dir or Path(str(args.output_dir)) / DEFAULT_NAME)
    original = grpo.VLLMGeneration
    replacement = functools.partial(ServedGeneration, settings=settings, directory=directory, seed=args.seed, step=step)
    grpo.VLLMGeneration = replacement  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        grpo.VLLMGeneration = original
