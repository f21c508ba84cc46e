"""A reward model in this process: a `transformers` sequence classifier with its own tokenizer and chat
template."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from mgs_trl.verifiers.arrival import failure_announced
from mgs_trl.verifiers.base import Batch, Score
from mgs_trl.verifiers.completions import Message, prompt_text
from mgs_trl.verifiers.node import Node
from mgs_trl.verifiers.reward_length import learned_positions, longest_input, tokens_within
from mgs_trl.verifiers.reward_scale import ScaledVerifier, conversation

logger = logging.getLogger(__name__)

_FSDP_LOADING = "FSDP_CPU_RAM_EFFICIENT_LOADING"


class RewardModelVerifier(ScaledVerifier):
    """The scalar logit of a reward model on the conversation (prompt, answer without thinking).

    `model`: path, hub id, or a loaded module (then `tokenizer` too). It is loaded at the first use, or by
    `load()`, and sees the rows of its own domain only. `dtype`: "auto" is bfloat16 on a GPU, float32 on a
    CPU. `device`: "auto" is this rank's GPU. `max_length`: tokens, longer conversations lose their
    beginning (counted as `truncated`); None is the model's own limit. `batch_tokens`: padded tokens per
    forward pass; rows are batched by length. A tokenizer without a chat template gets the prompt and the
    answer as one text. `share`: "rank" is a replica on every rank, "node" one per node, on its first rank,
    which scores the rows of all its ranks; every rank must then call the verifier, as TRL does.
    """

    label = "reward_model"

    def __init__(
        self,
        domain: str | Sequence[str] | None = None,
        *,
        model: Any = None,
        tokenizer: Any = None,
        dtype: str = "auto",
        device: str = "auto",
        batch_tokens: int = 16384,
        max_length: int | None = None,
        share: Literal["rank", "node"] = "rank",
        revision: str | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(domain, **options)
        if model is None or model == "":
            raise ValueError("model must be a path, a hub id or a module, got none")
        if not isinstance(model, str) and tokenizer is None:
            raise ValueError("tokenizer must be given when model is a module, got none")
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        if share not in ("rank", "node"):
            raise ValueError(f"share must be 'rank' or 'node', got {share!r}")
        self.source = os.path.expanduser(model) if isinstance(model, str) else model
        self.tokenizer_source = os.path.expanduser(tokenizer) if isinstance(tokenizer, str) else tokenizer
        self.dtype, self.device = dtype, device
        self.batch_tokens, self.max_length = batch_tokens, max_length
        self.collective = share == "node"
        self.node: Node | None = None
        self.revision, self.trust_remote_code = revision, trust_remote_code
        self.model: Any = None
        self.tokenizer: Any = None
        self.limit: int | None = None  # tokens; known once loaded

    def load(self) -> None:
        """Load model and tokenizer once.

        Raises ValueError for a model with other than one label, one whose score head is not in the
        checkpoint, a tokenizer whose ids exceed the model's embeddings, and a `max_length` for which the model has no
        positions.
        """
        if self.tokenizer is not None:
            return
        if self.collective:
            self.node = Node.mine()
        tokenizer = self._loaded_tokenizer()
        if self.node is None or self.node.first:
            self.model = self._loaded_model().eval()
            check_reward_model(self.model, tokenizer, self.__name__)
        self.limit = self._limit(self.model if self.model is not None else self._shape())
        self.tokenizer = tokenizer

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[Score]:
        with failure_announced():
            return super().__call__(prompts, completions, **columns)

    def preflight(self) -> None:
        """Load, and score one conversation."""
        self([[{"role": "user", "content": "Hello"}]], ["Hello, how can I help?"], **{self.domain_column: None})

    def _loaded_model(self) -> Any:
        import torch

        if not isinstance(self.source, str):
            return self.source
        from transformers import AutoModelForSequenceClassification

        try:
            labels = self._loaded_config().num_labels
        except (OSError, ValueError) as error:
            line = str(error).strip().splitlines()[0]
            raise ValueError(f"reward model {self.source!r} cannot be loaded: {line}") from error
        if labels != 1:
            raise ValueError(f"reward model {self.source!r} must have one label, got {labels}")
        if self.dtype != "auto" and not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise ValueError(f"dtype must be auto or a dtype of torch, such as bfloat16, got {self.dtype!r}")
        device = self.device if self.device != "auto" else _own_device()
        dtype = self.dtype if self.dtype != "auto" else "bfloat16" if device.startswith("cuda") else "float32"
        with loaded_whole():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                self.source,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                revision=self.revision,
                trust_remote_code=self.trust_remote_code,
            )
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])[:3]
            raise ValueError(f"reward model {self.source!r} lacks trained weights for {missing}, it is no reward model")
        return model.to(device)

    def _shape(self) -> Any:
        """The model without its weights, for a rank that does not score."""
        import torch
        from transformers import AutoModelForSequenceClassification

        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(
                self._loaded_config(), trust_remote_code=self.trust_remote_code
            )

    def _limit(self, model: Any) -> int | None:
        positions = learned_positions(model)
        if self.max_length is not None and positions is not None and self.max_length > positions:
            raise ValueError(
                f"max_length of {self.__name__!r} must be at most {positions}, the positions that its model has "
                f"embeddings for, got {self.max_length}"
            )
        return self.max_length or longest_input(model)

    def _loaded_config(self) -> Any:
        if not isinstance(self.source, str):
            return self.source.config
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.source, revision=self.revision, trust_remote_code=self.trust_remote_code)

    def _loaded_tokenizer(self) -> Any:
        if self.tokenizer_source is not None and not isinstance(self.tokenizer_source, str):
            return self.tokenizer_source
        from transformers import AutoTokenizer

        source = self.tokenizer_source or self.source
        return AutoTokenizer.from_pretrained(source, revision=self.revision, trust_remote_code=self.trust_remote_code)

    def _score(self, batch: Batch) -> list[Score]:
        self.load()
        tokens = {index: self._tokens(batch, index) for index in batch.indices}
        ids = [one for one in tokens.values() if one is not None]
        scores = iter(self.node.score(self._scored, ids) if self.node is not None else self._scored(ids))
        return [None if one is None else next(scores) for one in tokens.values()]

    def _scored(self, ids: list[list[int]]) -> list[Score]:
        """The scores of token rows `ids`, in their order."""
        scores: list[Score] = [None] * len(ids)
        for rows in by_length([len(one) for one in ids], self.batch_tokens):
            for row, score in zip(rows, self._forward([ids[row] for row in rows]), strict=True):
                scores[row] = score
        return scores

    def _tokens(self, batch: Batch, index: int) -> list[int] | None:
        """The row's conversation; None of one that cannot be written, such as with a system turn that the model's
        template refuses."""
        try:
            text, special = render(self.tokenizer, conversation(batch, index), batch.prompts[index])
        except Exception as error:  # templates raise jinja's, and any of Python's
            return batch.error(index, f"raised {type(error).__name__}: {error}")
        tokens, truncated = tokens_within(self.tokenizer, text, self.limit, special=special)
        batch.counts["truncated"] = batch.counts.get("truncated", 0) + truncated
        return tokens or [self.tokenizer.eos_token_id or 0]

    def _forward(self, rows: list[list[int]]) -> list[float]:
        """Scores of right-padded `rows`; out of memory, the batch is halved until one row remains."""
        import torch

        try:
            width, device = max(map(len, rows)), next(self.model.parameters()).device
            padding = padding_id(self.model.config.get_text_config().pad_token_id, rows)
            ids = torch.full((len(rows), width), padding, device=device)
            mask = torch.zeros((len(rows), width), dtype=torch.long, device=device)
            for row, tokens in enumerate(rows):
                ids[row, : len(tokens)] = torch.tensor(tokens, device=device)
                mask[row, : len(tokens)] = 1
            with torch.inference_mode(), padded_with(self.model, padding):
                return self.model(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
            logger.warning("%s: out of memory with %d rows, halving the batch", self.__name__, len(rows))
        torch.cuda.empty_cache()
        half = len(rows) // 2
        return self._forward(rows[:half]) + self._forward(rows[half:])


@contextlib.contextmanager
def loaded_whole() -> Iterator[None]:
    """While a model is loaded that the policy's engine has no part in.

    Under ZeRO-3 transformers deals every model that it loads out to the ranks; under FSDP with
    `cpu_ram_efficient_loading` it leaves zeros on all ranks but each node's first, for FSDP to fill. Private name,
    verified with transformers 5.17.0: `integrations.deepspeed._hf_deepspeed_config_weak_ref`.
    """
    from transformers.integrations import deepspeed

    reference, efficient = deepspeed._hf_deepspeed_config_weak_ref, os.environ.pop(_FSDP_LOADING, None)
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = reference
        if efficient is not None:
            os.environ[_FSDP_LOADING] = efficient


def check_reward_model(model: Any, tokenizer: Any, name: str) -> None:
    """Raise ValueError unless `model` gives one score and has an embedding for every id of `tokenizer`."""
    if model.config.num_labels != 1:
        raise ValueError(f"reward model of {name!r} must have one label, got {model.config.num_labels}")
    if getattr(model.config, "summary_type", None) == "last":  # XLNet
        raise ValueError(f"reward model of {name!r} must score its last token that is not padding, it scores the last")
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise ValueError(
            f"reward model of {name!r} has {rows} embeddings but its tokenizer's ids go up to {largest}, "
            "they do not belong together"
        )


def render(tokenizer: Any, messages: list[Message], prompt: Any) -> tuple[str, bool]:
    """The text to score, and whether the tokenizer is still to add its special tokens (a chat template has
    them)."""
    if getattr(tokenizer, "chat_template", None):
        return tokenizer.apply_chat_template(messages, tokenize=False), False
    separator = "" if isinstance(prompt, str) else "\n\n"
    return prompt_text(prompt) + separator + messages[-1]["content"], True


def padding_id(own: int | None, rows: Sequence[Sequence[int]]) -> int:
    """The id to pad with, so that a batch scores as each row would alone.

    The classifier scores the last token that is not its padding id. A model without one scores the last
    token there is, so the padding must not be an id that ends a row (the end of text, say, which a chat
    template leaves last).
    """
    if own is not None:
        return own
    ends = {row[-1] for row in rows}
    return next(one for one in range(len(ends) + 1) if one not in ends)


@contextlib.contextmanager
def padded_with(model: Any, padding: int) -> Iterator[None]:
    """The model's padding id for one forward pass."""
    config = model.config.get_text_config()
    before, config.pad_token_id = config.pad_token_id, padding
    try:
        yield
    finally:
        config.pad_token_id = before


def by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions in batches of similar length, longest first, each of at most `budget` padded tokens (or one
    row)."""
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def _own_device() -> str:
    import torch

    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}" if torch.cuda.is_available() else "cpu"
