"""Framing of the pipe between the pool and a worker: 4 bytes of length (big endian), then a pickle.

Both ends are our own processes on one machine, so pickle is safe here; nothing from the network passes
through.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any

_LENGTH = struct.Struct(">I")
MAX_FRAME = 2**31  # bytes; a longer frame is a corrupted stream


def encode(message: Any) -> bytes:
    """One frame holding `message`."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    if len(body) > MAX_FRAME:
        raise ValueError(f"message of {len(body)} bytes exceeds the {MAX_FRAME} bytes a verifier sample may have")
    return _LENGTH.pack(len(body)) + body


class FrameBuffer:
    """Collects bytes as they arrive and hands out whole messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Add `data`; return the messages completed by it, oldest first."""
        self._data += data
        messages = []
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            if length > MAX_FRAME:
                raise ValueError(f"frame of {length} bytes on a verifier pipe, the stream is corrupted")
            end = _LENGTH.size + length
            if len(self._data) < end:
                break
            messages.append(pickle.loads(bytes(self._data[_LENGTH.size : end])))
            del self._data[:end]
        return messages
