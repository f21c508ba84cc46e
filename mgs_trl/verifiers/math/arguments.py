r"""Braces around arguments that have none: `\frac\pi2`, `\binom nk`, `\sqrt\pi`, `x^\frac12`.

Digits side by side (`\frac12`, `\sqrt12`) stay: math-verify reads them.
"""

from __future__ import annotations

import re

_ARGUMENTS = {"frac": 2, "binom": 2, "dbinom": 2, "tbinom": 2, "sqrt": 1}
_TAKES_ARGUMENTS = re.compile(rf"([_^]\s*)?\\({'|'.join(_ARGUMENTS)})(?![A-Za-z])\s*(?!\[)")
_BARE = re.compile(r"\\([A-Za-z]+)|[A-Za-z\d]")


def with_braces(text: str) -> str:
    """The text, each argument of a fraction, binomial or root that is a letter or a command in braces."""
    for command in reversed(list(_TAKES_ARGUMENTS.finditer(text))):  # an argument's own arguments first
        text = text[: command.start()] + _braced(command.group(1), command.group(2), text[command.end() :])
    return text


def _braced(script: str | None, name: str, rest: str) -> str:
    """The command and what follows it, its arguments in braces, and itself too if it is an exponent or an index."""
    arguments, end = [], 0
    for _ in range(_ARGUMENTS[name]):
        end += len(rest[end:]) - len(rest[end:].lstrip(" "))
        length = _argument(rest[end:])
        arguments.append(rest[end : end + length])
        end += length
    if not all(arguments):
        return f"{script or ''}\\{name}{' ' if rest[:1].isalpha() else ''}{rest}"
    if not "".join(arguments).isdecimal():
        arguments = [one if one.startswith("{") else f"{{{one}}}" for one in arguments]
    command = f"\\{name}{''.join(arguments)}"
    return (f"{script}{{{command}}}" if script else command) + rest[end:]


def _argument(text: str) -> int:
    """The length of the argument that the text begins with: a group, a command with its groups, one letter or digit; 0
    without one."""
    bare = _BARE.match(text)
    end = bare.end() if bare else 0
    for _ in range(_ARGUMENTS.get(bare.group(1), 0) if bare else 1):
        group = _group(text[end:])
        if not group:
            return 0
        end += group
    return end


def _group(text: str) -> int:
    depth = 0
    for brace in re.finditer(r"\\.|[{}]", text) if text.startswith("{") else ():
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.end()
    return 0
