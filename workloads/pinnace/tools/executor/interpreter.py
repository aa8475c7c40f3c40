"""The supervisor's handle of one interpreter: starts it, asks it, interrupts it, ends its whole tree."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pinnace.tools.executor import frames
from pinnace.tools.executor.capture import Capture
from pinnace.tools.executor.codec import Codec, Kind
from pinnace.tools.executor.frames import Message
from pinnace.tools.executor.processes import below, kill, kill_tree, ticks
from pinnace.tools.executor.spawn import Child, spawn

Why = Literal["timeout", "memory", "processes", "ended", "protocol", "reset"]
_START_SECONDS = 30.0
_READ = 1 << 16
_ROUNDS = 64


class Ended(Exception):
    """The interpreter is gone, or was ended, before it answered."""

    def __init__(self, why: Why, status: int | None, *, delivered: bool = True) -> None:
        super().__init__(why)
        self.why = why
        self.status = status
        """Exit code, or minus the signal's number; None where nobody knows."""
        self.delivered = delivered
        """False where it can't have seen the request."""


class Interpreter:
    """Starts again by itself after an end. Calls queue up; one runs at a time."""

    def __init__(
        self, kind: Kind, *, prefix: Sequence[str], environment: dict[str, str], folder: str, output: int, grace: float
    ) -> None:
        self.kind = kind
        self.out, self.err = Capture(output), Capture(output)
        self.arming: list[Message] = []
        """Asked after every start: environment and limits of the lease."""
        self._command = [*prefix, *kind.command]
        self._environment, self._folder, self._grace = environment, folder, grace
        self._lock = asyncio.Lock()
        self._child: Child | None = None
        self._codec: Codec = kind.codec()
        self._replies: asyncio.Queue[Message | None] = asyncio.Queue()
        self._status: asyncio.Future[int] | None = None
        self._why: Why | None = None
        self.running = False
        """A call is under way."""
        self._since = 0
        self.epoch = 0
        """Counts resets: a call that waited through one belongs to a lease that is over, and must not run."""
        self.renewed = False
        """It ended between two calls and no answer has said so yet."""

    @property
    def pid(self) -> int | None:
        """Of the process that we started, whoever it became."""
        return self._child.pid if self._child else None

    @property
    def inner(self) -> int | None:
        """The interpreter's own pid: below bubblewrap's where there is one."""
        pid = self.pid
        while pid is not None and self._is_bubblewrap(pid):
            children = [process.pid for process in below(pid) if process.parent == pid]
            if not children:
                break
            pid = children[0]
        return pid

    @staticmethod
    def _is_bubblewrap(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/comm").read_text().strip() == "bwrap"
        except OSError:
            return False

    async def start(self) -> None:
        """Starts it, waits until it is ready and arms it. Raises `Ended`."""
        async with self._lock:
            await self._start()

    async def _start(self) -> None:
        if self._child is not None and self._is_gone(self._child):
            self.renewed = True
            await self._gone("ended")
        if self._child is not None:
            return
        loop = asyncio.get_running_loop()
        self._codec, self._replies, self._why = self.kind.codec(), asyncio.Queue(), None
        self._status = loop.create_future()
        self._child = spawn(self._command, environment=self._environment, folder=self._folder)
        loop.add_reader(self._child.control, self._on_control)
        loop.add_reader(self._child.stdout, self._on_output, self._child.stdout, self.out)
        loop.add_reader(self._child.stderr, self._on_output, self._child.stderr, self.err)
        await self._reply(_START_SECONDS)
        for request in self.arming:
            await self._exchange(request, _START_SECONDS)

    def _is_gone(self, child: Child) -> bool:
        """It was reaped, or closed its end; also where the loop has not heard of that yet."""
        if self._status is not None and self._status.done():
            return True
        try:
            return child.control.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def ask(
        self,
        request: Message,
        seconds: float,
        *,
        more: Callable[[Message], Awaitable[None]] | None = None,
        epoch: int | None = None,
    ) -> Message:
        """One request and its answer. Past `seconds` it is interrupted, then ended; that raises `Ended`.

        Args:
            request: what the interpreter's codec encodes.
            seconds: until it is interrupted.
            more: takes messages with a `chunk`, which come before the answer.
            epoch: that the request belongs to, where it is not the present one.
        """
        epoch = self.epoch if epoch is None else epoch
        async with self._lock:
            self._check(epoch)
            await self._start()
            self.running, self._since = True, ticks()
            try:
                try:
                    reply = await self._exchange(request, seconds, more)
                except Ended as ended:
                    if ended.delivered:
                        raise
                    self._check(epoch)
                    self.renewed = True
                    await self._start()
                    reply = await self._exchange(request, seconds, more)
            except asyncio.CancelledError:
                await asyncio.shield(self._stop())
                raise
            finally:
                self.running = False
            return reply

    def _check(self, epoch: int) -> None:
        if epoch != self.epoch:
            raise Ended("reset", None)

    async def _exchange(
        self, request: Message, seconds: float, more: Callable[[Message], Awaitable[None]] | None = None
    ) -> Message:
        child = self._child
        if child is None:
            raise Ended("ended", None)
        while not self._replies.empty():  # the code can write here: an answer to nobody must not answer this
            if self._replies.get_nowait() is None:
                raise Ended("ended", (await self._gone("ended")).status, delivered=False)
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_sendall(child.control, self._codec.encode(request))
        except TimeoutError:
            raise await self._gone("timeout") from None
        except OSError:
            raise Ended("ended", (await self._gone("ended")).status, delivered=False) from None
        while True:
            left = deadline - asyncio.get_running_loop().time()
            try:
                reply = await self._reply(max(0.0, left))
            except TimeoutError:
                return await self._stop() | {"timedOut": True}
            if more is None or "chunk" not in reply:
                self._drain()
                return reply
            await more(reply)

    async def _reply(self, seconds: float) -> Message:
        try:
            async with asyncio.timeout(seconds):
                reply = await self._replies.get()
        except TimeoutError:
            if not self._replies.empty() and (late := self._replies.get_nowait()) is not None:
                return late
            raise
        if reply is None:
            raise await self._gone("ended")
        return reply

    async def _stop(self) -> Message:
        """Interrupts the running request; ends the tree where that does not help. Raises `Ended` then."""
        inner = self.inner
        if inner is not None and self.kind.interrupt != "never":
            below_it = [process.pid for process in below(inner)]
            for pid in below_it if self.kind.interrupt == "below" else [inner]:
                kill(pid, signal.SIGINT)
            with suppress(TimeoutError):
                reply = await self._reply(self._grace)
                for process in below(inner):  # what the call started ends with it; a server of an earlier call stays
                    if process.started >= self._since:
                        kill_tree(process.pid)
                self._drain()
                return reply
        raise await self._gone("timeout")

    async def _gone(self, why: Why) -> Ended:
        """Ends what is left of it and says how it ended."""
        child, status = self._child, self._status
        if child is None or status is None:
            return Ended(self._why or why, None)
        if why == "ended":  # it ended by itself: its own exit status tells more than our SIGKILL
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await asyncio.shield(status)
        if not status.done():  # else the pid may be somebody else's by now
            kill_tree(child.pid)
        code: int | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                code = await asyncio.shield(status)
        self._drain()
        self._close()
        return Ended(self._why or why, code)

    def end(self, why: Why) -> bool:
        """SIGKILL to the whole tree; the call under way learns `why`. False where the tree outgrows the killing."""
        self._why = self._why or why
        if self._child is None or self._status is None or self._status.done():
            return True
        return kill_tree(self._child.pid)

    def mark(self, why: Why) -> None:
        """It is about to be ended by other means than `end`."""
        self._why = self._why or why

    def exited(self, status: int) -> None:
        """The supervisor reaped it."""
        if self._status is not None and not self._status.done():
            self._status.set_result(status)
        self._replies.put_nowait(None)

    async def closed(self) -> None:
        """After `end`: until it is reaped and its pipes are closed."""
        if self._child is not None:
            await self._gone("reset")
        self.out.clear()
        self.err.clear()

    def _close(self) -> None:
        if self._child is None:
            return
        loop = asyncio.get_running_loop()
        for descriptor in (self._child.control, self._child.stdout, self._child.stderr):
            loop.remove_reader(descriptor)
        self._child.close()
        self._child = None

    def _on_control(self) -> None:
        if self._child is None:
            return
        try:
            data = self._child.control.recv(_READ)
            for message in self._codec.feed(data):
                self._replies.put_nowait(message)
        except BlockingIOError:
            return
        except frames.BadFrame:
            self._why = "protocol"
            data = b""
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._child.control)
            self._replies.put_nowait(None)

    def _on_output(self, descriptor: int, capture: Capture) -> bool:
        try:
            data = os.read(descriptor, _READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(descriptor)
            return False
        capture.feed(data)
        return True

    def _drain(self) -> None:
        """What was written before the answer lies in the pipes; one that writes on and on must not keep us here."""
        if self._child is None:
            return
        for descriptor, capture in ((self._child.stdout, self.out), (self._child.stderr, self.err)):
            for _ in range(_ROUNDS):
                if not self._on_output(descriptor, capture):
                    break
