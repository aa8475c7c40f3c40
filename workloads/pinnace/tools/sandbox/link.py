"""The agent's end of the executor's socket: one connection, many requests on it, and no trust in what comes back."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pinnace.tools.executor import frames
from pinnace.tools.executor.frames import Message

log = logging.getLogger(__name__)

_SETTLE_SECONDS = 1.0
"""After a connection broke, the old container's last processes need a moment to be gone before we listen again."""
_MARGIN_SECONDS = 15.0
"""A supervisor that does not answer so long after a call should have ended is taken for hung."""


class ExecutorLost(Exception):
    """The executor is not connected, or went away before it answered."""


@dataclass
class _Request:
    number: int
    answers: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue)
    finished: bool = False


class Link:
    """Listens for the executor. Whoever connects first, from `uid`, is it for as long as the connection lives.

    Until then no untrusted code runs, and while it lives nobody else is let in: code that finds the socket is refused.
    """

    def __init__(self, path: Path, *, uid: int | None, on_change: Callable[[bool], None]) -> None:
        self._path, self._uid, self._on_change = path, uid, on_change
        self._pending: dict[int, _Request] = {}
        self._number = 0
        self._writer: asyncio.StreamWriter | None = None
        self.hello: Message = {}

    @property
    def connected(self) -> bool:
        return self._writer is not None and bool(self.hello)

    async def serve(self) -> None:
        """Accepts one executor after another, for ever."""
        while True:
            self._path.unlink(missing_ok=True)
            gone = asyncio.Event()
            server = await asyncio.start_unix_server(partial(self._accept, gone), path=self._path, backlog=4)
            self._path.chmod(0o666)
            try:
                await gone.wait()
            finally:
                server.close()
                self._path.unlink(missing_ok=True)
            await asyncio.sleep(_SETTLE_SECONDS)

    async def _accept(self, gone: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._writer is not None or not self._known(writer.get_extra_info("socket")):
            writer.close()
            return
        self._writer = writer
        try:
            await self._read(reader)
        except (OSError, frames.BadFrame) as error:
            log.warning("the executor's connection: %s", error)
        finally:
            self._lose()
            gone.set()

    def _known(self, connection: socket.socket) -> bool:
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if self._uid is not None and uid != self._uid:
            log.warning("uid %d at the executor's socket, only %d may", uid, self._uid)
            return False
        return True

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = frames.Decoder()
        while data := await reader.read(1 << 18):
            for message in decoder.feed(data):
                if not self.hello:
                    if message.get("hello") != 1:
                        raise frames.BadFrame("the first frame is no hello")
                    self.hello = message
                    self._on_change(True)
                elif waiting := self._pending.get(message.get("id", 0)):
                    waiting.answers.put_nowait(message)

    def _lose(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self.hello = None, {}
        for waiting in self._pending.values():
            waiting.answers.put_nowait(None)
        self._on_change(False)

    def cut(self) -> None:
        """Ends the connection, and with it the supervisor and everything below it."""
        if self._writer is not None:
            self._writer.close()
            self.hello = {}

    async def call(self, op: str, seconds: float, /, **fields: Any) -> Message:
        """One request and its answer. Cancelling it cancels the work.

        Args:
            op: the supervisor's operation.
            seconds: how long the executor may take; well past it the connection is cut, which ends all its processes.
            fields: the request.
        Raises:
            ExecutorLost: it went away.
        """
        with self._request(op, fields) as request:
            return await self._next(request, op, seconds)

    async def tar(self, seconds: float, most: int) -> AsyncIterator[bytes | Message]:
        """Chunks of the workspace's tar, then the last answer."""
        total = 0
        with self._request("tar", {"most": most, "seconds": seconds}) as request:
            while "chunk" in (message := await self._next(request, "tar", seconds)):
                try:
                    chunk = base64.b64decode(str(message["chunk"]), validate=True)
                except binascii.Error as error:
                    raise ExecutorLost("the executor sent no base64") from error
                total += len(chunk)
                if total > 2 * most + (64 << 20):  # headers and padding; what is not honest about `most` ends here
                    raise ExecutorLost("the executor sent more than was asked for")
                yield chunk
            yield message

    @contextmanager
    def _request(self, op: str, fields: dict[str, Any]) -> Iterator[_Request]:
        """Sends it; one that is left before its last answer is cancelled over there."""
        writer = self._writer
        if writer is None or not self.hello:
            raise ExecutorLost("the executor is not running; its container is being started again")
        self._number += 1
        request = self._pending[self._number] = _Request(self._number)
        writer.write(frames.encode({"id": request.number, "op": op} | fields))
        try:
            yield request
        finally:
            del self._pending[request.number]
            if not request.finished:
                with suppress(OSError):
                    writer.write(frames.encode({"id": request.number, "op": "cancel"}))

    async def _next(self, request: _Request, op: str, seconds: float) -> Message:
        try:
            async with asyncio.timeout(seconds + _MARGIN_SECONDS):
                message = await request.answers.get()
        except TimeoutError:
            log.error("the executor does not answer %s: cutting the connection", op)  # noqa: TRY400 - no traceback to tell
            self.cut()
            request.finished = True
            raise ExecutorLost("the executor does not answer; it is started again") from None
        request.finished = message is None or "chunk" not in message
        if message is None:
            raise ExecutorLost("the executor ended before it answered; its processes are gone")
        return message
