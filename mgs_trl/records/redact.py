"""What a run leaves behind is passed on, and uploaded: values that look like credentials are not shown."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

HIDDEN = "(hidden)"
_NAMES = (
    r"(?:api|access|private)[_-]?key|secret(?:[_-]?key)?|passw(?:or)?d|passphrase|authorization|credentials?|cookie"
    r"|(?:hub|access|auth|bearer|hf|push_to_hub|api|session)[_-]token"
)
_SECRET_KEY = re.compile(rf"(?:{_NAMES}|^token)$", re.IGNORECASE)
_IN_TEXT = re.compile(
    rf"((?:{_NAMES}|(?<![\w-])token)[\"']?\s*[=:\s]\s*[\"']?(?:(?:bearer|basic|token)\s+)?)[^\s,}}\"']+",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(://)[^/@\s]+@")
_IN_QUERY = re.compile(rf"([?&](?:{_NAMES}|token|key)=)[^&#\s]+", re.IGNORECASE)
_LEFT_OUT = re.compile(rf"(?:^|://|=|\b(?:bearer|basic|token) ){re.escape(HIDDEN)}", re.IGNORECASE)


def redact(value: Any) -> Any:
    """A copy of nested data without the values of keys that name credentials, and without those in URLs."""
    if isinstance(value, Mapping):
        return {key: HIDDEN if _is_secret(key, inner) else redact(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner) for inner in value]
    if not isinstance(value, str):
        return value
    return _IN_QUERY.sub(rf"\1{HIDDEN}", _IN_URL.sub(rf"\1{HIDDEN}@", value))


def redact_command(command: str) -> str:
    """A command line without values of arguments that name credentials."""
    return redact(_IN_TEXT.sub(rf"\1{HIDDEN}", command))


def redact_launch(launch: Mapping[str, Any]) -> dict[str, Any]:
    """How a run was started, without credentials."""
    return {**redact(launch), "command": redact_command(str(launch.get("command", "")))}


def redact_recipe(content: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved recipe without credentials: nor those in its study's overrides, nor the `vars` they were made of."""
    secrets = list(_secrets(content))
    shown = redact(content)
    shown["vars"] = _map_texts(shown["vars"], lambda text: HIDDEN if any(text in s for s in secrets) else text)
    shown["study"] = _map_texts(shown["study"], redact_command)
    return shown


def find_hidden(value: Any, where: str = "") -> str | None:
    """The dotted key of the first value in nested data from which a credential has been left out."""
    if isinstance(value, str):
        return where if _LEFT_OUT.search(value) else None
    if isinstance(value, Mapping):
        inner = [(f"{where}.{key}".lstrip("."), part) for key, part in value.items()]
    else:
        inner = [(f"{where}[{index}]", part) for index, part in enumerate(value)] if isinstance(value, list) else []
    return next((found for key, part in inner if (found := find_hidden(part, key))), None)


def _is_secret(key: Any, value: Any) -> bool:
    if value in (None, "") or isinstance(value, Mapping | bool):
        return False
    return _SECRET_KEY.search(str(key)) is not None


def _secrets(value: Any) -> Iterator[str]:
    """The texts that `redact` leaves out with their keys."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from [str(inner)] if _is_secret(key, inner) else _secrets(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets(inner)


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _map_texts(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_map_texts(inner, change) for inner in value]
    return change(value) if isinstance(value, str) and value else value
