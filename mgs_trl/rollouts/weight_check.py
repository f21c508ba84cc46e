"""Whether the engine that generates has the policy's weights.

An engine fuses, packs, shards and casts its weights, and adapters are merged on the way; so no sum over parameters is
comparable on both sides, and the parameters are in pieces under ZeRO-3. What both sides can compute whatever the form
is the log-probability of a fixed text. Two rules:

- the two must agree up to the noise of the dtype (weights that never arrived, or arrived under wrong names);
- after a step that moved the policy's numbers, the engine's must have moved too: an engine that answers with exactly
  the numbers from before has not taken the new weights, however small the step was.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn

from mgs_trl.engines import forget_order
from mgs_trl.ranks.agreement import from_main_process
from mgs_trl.rollouts.errors import StaleWeightsError
from mgs_trl.rollouts.server import Server
from mgs_trl.rollouts.settings import ServerSettings

PROBE_TOKENS = 32
#: Largest mean |log p(engine) - log p(policy)| over the probe. Noise seen on CPU: 1e-6 (float32), 0.02 (bfloat16).
TOLERANCE, COARSE_TOLERANCE = 0.001, 0.15
#: A step that moves the policy's numbers less than this need not show in the engine's, which are rounded.
VISIBLE, COARSE_VISIBLE = 1e-5, 0.01


class WeightCheck:
    """Compares the engine with the policy after a weight synchronization.

    Args:
        model: the policy; every rank calls it.
        engine: log-probability of each token but the first, given those before it; length n - 1.
        vocabulary: number of token ids to take the text from.
        length: of the text, in tokens.
        exact: whether policy and engine both compute in float32.
        every: compare at every so many synchronizations; the first and second are always compared. 0: never.
    """

    def __init__(
        self,
        model: nn.Module,
        engine: Callable[[list[int]], list[float]],
        vocabulary: int,
        exact: bool,
        every: int,
        length: int = PROBE_TOKENS,
    ):
        self.model, self.engine, self.every = model, engine, every
        generator = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(vocabulary, (length,), generator=generator).tolist()
        self.tolerance = TOLERANCE if exact else COARSE_TOLERANCE
        self.visible = VISIBLE if exact else COARSE_VISIBLE
        self._syncs = 0
        self._before: tuple[Tensor, Tensor] | None = None

    def after_sync(self) -> None:
        """Call on every rank after each synchronization.

        Raises:
            StaleWeightsError: on every rank, if one rank's engine differs.
        """
        self._syncs += 1
        if not self.every or (self._syncs > 2 and self._syncs % self.every):
            return
        policy = self._policy_logps()
        engine = torch.tensor(self.engine(self.tokens), dtype=torch.float64)
        causes = [cause for cause in gather_object([self._difference(policy, engine)]) if cause is not None]
        if causes:
            raise StaleWeightsError(
                f"the engine does not generate with the policy's weights after synchronization {self._syncs}: "
                f"{causes[0]}; training would go on with stale rollouts."
            )
        self._before = policy, engine

    def _difference(self, policy: Tensor, engine: Tensor) -> str | None:
        mean = float((policy - engine).abs().mean())
        if not mean <= self.tolerance:
            return (
                f"over {len(policy)} tokens its log-probabilities differ from the policy's by {mean:.3g} on average, "
                f"where {self.tolerance:g} is allowed"
            )
        if self._before is not None:
            moved = float((policy - self._before[0]).abs().mean())
            if moved > self.visible and torch.equal(engine, self._before[1]):
                return (
                    f"since the last check the policy's log-probabilities moved by {moved:.3g} on average, "
                    "and the engine's not at all"
                )
        return None

    def _policy_logps(self) -> Tensor:
        """Float64 `[n - 1]`."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                tokens = torch.tensor([self.tokens], device=next(self.model.parameters()).device)
                logits = self.model(input_ids=tokens).logits[0, :-1].double()
        finally:
            self.model.train(training)
        logps = logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])
        return logps[:, 0].cpu()


def check_weights(generation: Any, every: int) -> None:
    """From now on, `generation.sync_weights` is followed by a check of the engine's weights.

    Args:
        generation: the trainer's `VLLMGeneration`, of any mode.
        every: as in `WeightCheck`.
    """
    if not every:
        return
    if generation.mode == "server":
        info = from_main_process(generation.accelerator, lambda: generation.vllm_client.get_server_info())
        dtype, longest = info["model_config"]["dtype"], info["model_config"]["max_model_len"]
        ask = _ask_servers(generation)
    else:
        config = generation.llm.llm_engine.model_config
        dtype, longest = config.dtype, config.max_model_len
        ask = _ask_colocated(generation)
    model = generation.model
    plain = generation.accelerator.mixed_precision == "no" and next(model.parameters()).dtype == torch.float32
    exact = plain and str(dtype).endswith("float32")
    processor = generation.processing_class
    tokenizer = getattr(processor, "tokenizer", processor)  # a vision-language model's processor has no length
    vocabulary = min(len(tokenizer), model.config.get_text_config().vocab_size)
    check = WeightCheck(model, ask, vocabulary, exact, every, min(PROBE_TOKENS, longest - 1))
    synchronize = generation.sync_weights

    def synchronize_and_check() -> None:
        synchronize()
        check.after_sync()
        if generation.accelerator.distributed_type == DistributedType.DEEPSPEED:
            forget_order(generation.accelerator.deepspeed_engine_wrapped.engine)  # the check has called the head

    generation.sync_weights = synchronize_and_check


def _ask_colocated(generation: Any) -> Callable[[list[int]], list[float]]:
    from vllm import SamplingParams

    llm = generation.llm

    def ask(tokens: list[int]) -> list[float]:
        if generation.enable_sleep_mode:
            # The synchronization woke the weights only. TRL wakes the rest when it generates, which is next.
            llm.wake_up(tags=["kv_cache"])
        parameters = SamplingParams(max_tokens=1, temperature=1.0, prompt_logprobs=0)
        [output] = llm.generate([{"prompt_token_ids": tokens}], parameters, use_tqdm=False)
        rows = output.prompt_logprobs[1:]
        return [row[token].logprob for row, token in zip(rows, tokens[1:], strict=True)]

    return ask


def _ask_servers(generation: Any) -> Callable[[list[int]], list[float]]:
    """The server whose answers are least like the others' would be found by any check; all are asked in turn."""
    servers = getattr(generation, "servers", None)
    if servers is None:
        client = generation.vllm_client if generation.accelerator.is_main_process else None
        servers = [Server(client.base_url, ServerSettings([client.base_url]), client.model)] if client else []
    turn = itertools.cycle(servers)
    return lambda tokens: from_main_process(generation.accelerator, lambda: next(turn).prompt_logps(tokens))
