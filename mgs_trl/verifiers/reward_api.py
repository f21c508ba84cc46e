"""The JSON that reward servers speak: how a conversation becomes a request and a response a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mgs_trl.verifiers.completions import Message


class BadResponse(Exception):
    """The server answered with something that holds no score."""


@dataclass(frozen=True)
class Api:
    """`path` is appended to the server's address; `request(messages, model)` and `score(body)` do the
    rest."""

    path: str
    request: Callable[[list[Message], str | None], dict[str, Any]]
    score: Callable[[Any], float]


def _vllm_request(messages: list[Message], model: str | None) -> dict[str, Any]:
    # The raw logit is the reward; with the activation on, a one-label model answers in (0, 1).
    body: dict[str, Any] = {"messages": messages, "use_activation": False}
    return body if model is None else {**body, "model": model}


def _text(messages: list[Message]) -> str:
    return "\n\n".join(message["content"] for message in messages)


def _single(values: Any) -> float:
    """The one number in `values`, however it is nested; raises BadResponse when there are more or none."""
    while isinstance(values, list) and len(values) == 1:
        values = values[0]
    if isinstance(values, bool) or not isinstance(values, (int, float)):
        raise BadResponse(f"expected one score, got {str(values)[:120]}")
    try:
        return float(values)
    except OverflowError:
        raise BadResponse(f"expected a score that a float holds, got {str(values)[:120]}") from None


def _field(body: Any, *path: str | int) -> Any:
    for step in path:
        try:
            body = body[step]
        except (KeyError, IndexError, TypeError):
            raise BadResponse(f"no {step!r} in {str(body)[:120]}") from None
    return body


def _tei_score(body: Any) -> float:
    while isinstance(body, list) and len(body) == 1:
        body = body[0]
    return _single(_field(body, "score"))


def _json_score(body: Any) -> float:
    for name in ("score", "reward", "scores", "rewards"):
        if isinstance(body, dict) and name in body:
            return _single(body[name])
    raise BadResponse(f"no score or reward in {str(body)[:120]}")


APIS: dict[str, Api] = {
    # vllm serve MODEL --runner pooling; the server applies the reward model's chat template
    "vllm_classify": Api("/classify", _vllm_request, lambda body: _single(_field(body, "data", 0, "probs"))),
    "vllm_pooling": Api(
        "/pooling",
        lambda messages, model: {**_vllm_request(messages, model), "task": "classify"},
        lambda body: _single(_field(body, "data", 0, "data")),
    ),
    # text-embeddings-inference with a one-label classifier
    "tei": Api("/predict", lambda messages, model: {"inputs": _text(messages), "raw_scores": True}, _tei_score),
    # anything small of one's own: {"messages": [...]} -> {"score": 0.5}
    "json": Api("", lambda messages, model: {"messages": messages, **({"model": model} if model else {})}, _json_score),
}
