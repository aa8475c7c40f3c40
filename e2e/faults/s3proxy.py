"""A TCP proxy before S3 that breaks answers: cut, reset, stalled, slow, damaged, or a 503 of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

_SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>provoked</Message></Error>"
_BUSY = b"HTTP/1.1 503 Busy\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
    len(_SLOW_DOWN),
    _SLOW_DOWN,
)


@dataclass
class Fault:
    """What happens to answers.

    Attributes:
        kind: `cut` and `reset` end the connection after `after` bytes; `flip` changes the byte at `after`; `stall`
            sends nothing; `slow` sends `after` bytes a second; `busy` answers 503.
        after: see `kind`.
        times: connections it happens to; None: all.
        hits: connections it has happened to.
    """

    kind: Literal["cut", "reset", "flip", "stall", "slow", "busy"]
    after: int = 0
    times: int | None = None
    hits: int = field(default=0, init=False)

    def take(self) -> bool:
        """True if it happens once more."""
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True


class S3Proxy:
    """Listens on loopback and forwards to `upstream_port`. `fault` may be changed at any time, for new connections."""

    def __init__(self, upstream_port: int) -> None:
        self.fault: Fault | None = None
        self.port = 0
        self._upstream_port = upstream_port
        self._loop = asyncio.new_event_loop()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self.fault if self.fault and self.fault.take() else None
        with suppress(OSError, asyncio.CancelledError):
            if fault and fault.kind == "busy":
                await reader.read(65536)
                writer.write(_BUSY)
                await writer.drain()
            else:
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
                up = asyncio.ensure_future(_copy(reader, up_writer))
                await _answer(up_reader, writer, fault)
                up.cancel()
                up_writer.close()
        writer.close()

    @contextmanager
    def running(self) -> Iterator[S3Proxy]:
        """Serves until the end of the block."""
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(server.close)
            self._loop.call_soon_threadsafe(self._stop)
            thread.join()
            self._loop.close()

    def _stop(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        ended = asyncio.gather(*tasks, return_exceptions=True)
        ended.add_done_callback(lambda _: self._loop.stop())


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None) -> None:
    sent = 0
    size = 65536 if not (fault and fault.kind == "slow") else max(1, fault.after // 10)
    while data := await reader.read(size):
        end = sent + len(data)
        if fault and fault.kind == "stall":
            continue
        if fault and fault.kind in {"cut", "reset"} and end > fault.after:
            writer.write(data[: fault.after - sent])
            await writer.drain()
            if fault.kind == "reset":
                # Linger 0: close sends RST.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        if fault and fault.kind == "flip" and sent <= fault.after < end:
            at = fault.after - sent
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        writer.write(data)
        await writer.drain()
        sent = end
        if fault and fault.kind == "slow":
            await asyncio.sleep(0.1)
