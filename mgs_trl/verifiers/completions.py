"""Prompts and completions as TRL hands them over, text or messages, each row judged by itself (never by the
first row)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Message = dict[str, Any]


def content_text(content: Any) -> str:
    """The text of one message's `content`: a string, a list of typed parts (other kinds than text are
    skipped), or None."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else str(part.get("text") or "") for part in content)
    raise ValueError(f"message content must be text or a list of parts, got {type(content).__name__}")


def completion_text(completion: Any) -> str:
    """The model's answer: the completion itself, or the content of its last assistant message.

    A conversational completion with tool calls holds several messages; what answers the user is the last one.
    A list without an assistant message gives the last message, an empty list the empty text.
    """
    if completion is None:
        return ""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Mapping):
        return content_text(completion.get("content"))
    if isinstance(completion, list) and all(isinstance(message, Mapping) for message in completion):
        for message in reversed(completion):
            if message.get("role", "assistant") == "assistant":
                return content_text(message.get("content"))
        return content_text(completion[-1].get("content")) if completion else ""
    raise ValueError(f"completion must be text or a list of messages, got {type(completion).__name__}")


def prompt_messages(prompt: Any) -> list[Message]:
    """The prompt as messages with text contents; a plain text prompt is one user message."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if isinstance(prompt, list):
        return [{"role": message["role"], "content": content_text(message.get("content"))} for message in prompt]
    raise ValueError(f"prompt must be text or a list of messages, got {type(prompt).__name__}")


def prompt_text(prompt: Any) -> str:
    """The prompt as plain text: itself, or the contents of its messages one after the other."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(message["content"] for message in prompt_messages(prompt))


def excerpt(value: Any, length: int = 160) -> str:
    """A short one-line form of a prompt or completion for errors and logs."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > length:
        text = f"{text[: length * 2 // 3]} ... {text[-length // 3 :]}"
    return repr(text)
