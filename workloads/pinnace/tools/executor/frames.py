"""Messages on the executor's sockets: four bytes of length (big endian), then a JSON object in UTF-8."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LARGEST = 16 * 1024 * 1024
"""Bytes of the largest frame. A longer one is a broken or hostile peer."""

Message = dict[str, Any]


class BadFrame(Exception):
    """The peer breaks the protocol. Nothing after it on this connection can be trusted."""


def encode(message: Mapping[str, Any]) -> bytes:
    """`message` as a frame. Raises `BadFrame` where it is too long to be read by the other side."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > LARGEST:
        raise BadFrame(f"a message of {len(body)} bytes is longer than {LARGEST}")
    return len(body).to_bytes(4, "big") + body


class Decoder:
    """Takes bytes as they come and gives whole messages."""

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes. Raises `BadFrame`."""
        self._held += data
        messages = []
        while len(self._held) >= 4:
            length = int.from_bytes(self._held[:4], "big")
            if length > self._largest:
                raise BadFrame(f"a frame of {length} bytes is announced, {self._largest} are allowed")
            if len(self._held) < 4 + length:
                break
            messages.append(_parse(bytes(self._held[4 : 4 + length])))
            del self._held[: 4 + length]
        return messages


def _parse(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"a frame is no JSON: {error}") from error
    if not isinstance(message, dict):
        raise BadFrame(f"a frame holds a {type(message).__name__}, not an object")
    return message
