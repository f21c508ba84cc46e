"""Reports are passed on: values that look like credentials are not shown."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "(hidden)"
_KEY = (
    r"(?:api[_-]?key|access[_-]?key|secret|passw(?:or)?d|authorization|credentials?"
    r"|(?:hub|access|auth|bearer|hf|push_to_hub|api)[_-]token|^token)"
)
_SECRET_KEY = re.compile(rf"{_KEY}$", re.IGNORECASE)
_IN_TEXT = re.compile(
    r"((?:api[_-]?key|access[_-]?key|secret|passw(?:or)?d|authorization|credentials?"
    r"|(?:hub|access|auth|bearer|hf|push_to_hub|api)[_-]token|(?<![\w-])token)"
    r"[\"']?\s*[=:\s]\s*[\"']?(?:(?:bearer|basic|token)\s+)?)[^\s,}\"']+",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(://)[^/@\s]+@")


def redact(value: Any) -> Any:
    """A copy of nested data without the values of keys that name credentials, and without users in URLs."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if isinstance(inner, str) and _SECRET_KEY.search(str(key)) else redact(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(inner) for inner in value]
    return _IN_URL.sub(rf"\1{HIDDEN}@", value) if isinstance(value, str) else value


def redact_command(command: str) -> str:
    """A command line without values of arguments that name credentials."""
    return _IN_URL.sub(rf"\1{HIDDEN}@", _IN_TEXT.sub(rf"\1{HIDDEN}", command))
