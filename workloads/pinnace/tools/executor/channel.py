"""An interpreter's end of the control socket: one message in, one message out."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Mapping
from typing import Any

from pinnace.tools.executor import frames
from pinnace.tools.executor.spawn import CONTROL

_OUT_OF_THE_WAY = 200


class Channel:
    """Blocks. Its descriptor is high and closes on exec: no program that the code starts inherits it."""

    def __init__(self, descriptor: int = CONTROL) -> None:
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
        os.close(descriptor)
        self._socket = socket.socket(fileno=high)
        self._decoder = frames.Decoder()
        self._waiting: list[frames.Message] = []

    def receive(self) -> frames.Message | None:
        """The next message; None when the supervisor is gone."""
        while not self._waiting:
            data = self._socket.recv(1 << 16)
            if not data:
                return None
            self._waiting = self._decoder.feed(data)
        return self._waiting.pop(0)

    def send(self, message: Mapping[str, Any]) -> None:
        """Answers."""
        self._socket.sendall(frames.encode(message))
