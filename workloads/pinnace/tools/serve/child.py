"""One stdio process: handshake, requests by id, progress, cancellation, and whatever else it writes.

A child's stdout is JSON-RPC and nothing else; a line that is not is counted, logged and skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pinnace.tools.serve.errors import ChildDied, Deadline, StartFailed, TooLong
from pinnace.tools.serve.lines import Lines, Oversized
from pinnace.tools.serve.settings import Launch
from pinnace.tools.serve.wire import LEGACY, METHOD_NOT_FOUND, Json, Rejection, dump

log = logging.getLogger(__name__)
_CHUNK = 1 << 16
_POLL_SECONDS = 0.05
_STDERR_LINES, _STDERR_WIDTH = 50, 500
_LOGGED_GARBAGE = 5
_MOST_PAGES = 100  # of tools/list: a server whose cursor never ends is not asked for ever

Progress = Callable[[Json], None]


@dataclass
class Counts:
    """What a child has done wrong, for the metrics."""

    garbage: int = 0
    oversized: int = 0


@dataclass
class _Waiting:
    answer: asyncio.Future[Json]
    progress: Progress | None = None


@dataclass
class Child:
    """A running server. Make one with `Child.start`; all its methods belong to one event loop."""

    launch: Launch
    line_bytes: int
    counts: Counts = field(default_factory=Counts)
    tools_changed: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.calls = 0
        self.in_flight = 0
        self.draining = False
        self.suspect = False  # it missed a deadline and has not answered a ping yet
        self.info: Json = {}
        self.ended = asyncio.Event()
        self.killed_because = ""
        self._next = 0
        self._waiting: dict[int, _Waiting] = {}
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """Its process id; 0 before it runs."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Spawns the process and shakes hands.

        Raises:
            StartFailed: It can't be run, ended, said no, or took too long; the end of its stderr is in the message.
        """
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.launch.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self.launch.env,
                cwd=self.launch.cwd,
                # A group of its own: what the server starts in turn is ended with it.
                start_new_session=True,
            )
        except OSError as error:
            raise StartFailed(f"{self.launch.command[0]} can't be run: {error}") from error
        self._tasks = [asyncio.create_task(each) for each in (self._read_stdout(), self._read_stderr(), self._watch())]
        try:
            await self._handshake()
        except (ChildDied, Deadline, Rejection) as error:
            await self.stop(grace=0)
            raise StartFailed(f"no handshake: {error}{self.last_words()}") from error
        except BaseException:
            await self.stop(grace=0)
            raise

    async def _handshake(self) -> None:
        client = {"name": "pinnace", "version": "1"}
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client}
        self.info = await self.request("initialize", params, seconds=self.launch.start_seconds)
        await self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def request(
        self, method: str, params: Json, *, seconds: float, progress: Progress | None = None, token: int | None = None
    ) -> Json:
        """The result of one request. A call that times out or is cancelled here is cancelled in the child too.

        Raises:
            Rejection: The child answered with a JSON-RPC error (its code and message, no id).
            Deadline, ChildDied, TooLong: As they say.
        """
        self._next += 1
        number = token or self._next
        waiting = _Waiting(asyncio.get_running_loop().create_future(), progress)
        self._waiting[number] = waiting
        try:
            async with asyncio.timeout(seconds):
                await self._write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
                message = await waiting.answer
        except TimeoutError:
            self._cancel(number, "deadline")
            raise Deadline(f"no answer to {method} in {seconds:.3g} seconds") from None
        except asyncio.CancelledError:
            self._cancel(number, "the caller went away")
            raise
        finally:
            self._waiting.pop(number, None)
        if (error := message.get("error")) is not None:
            raise Rejection(int(error.get("code", 0)), str(error.get("message", "")), None, error.get("data"))
        result = message.get("result")
        return result if isinstance(result, dict) else {}

    def token(self) -> int:
        """A number for a request that is to report progress: its id and its progress token."""
        self._next += 1
        return self._next

    async def tools(self, *, seconds: float) -> list[Json]:
        """All pages of `tools/list`."""
        found: list[Json] = []
        params: Json = {}
        for _ in range(_MOST_PAGES):
            page = await self.request("tools/list", params, seconds=seconds)
            found += page.get("tools", [])
            cursor = page.get("nextCursor")
            if not cursor:
                return found
            params = {"cursor": cursor}
        raise StartFailed(f"tools/list of {self.launch.name} does not end after {_MOST_PAGES} pages")

    def _cancel(self, number: int, reason: str) -> None:
        """Tells the child; nobody waits for it, and a child that is gone needs no telling."""
        if self._process and self._process.stdin and not self.ended.is_set():
            params = {"requestId": number, "reason": reason}
            with contextlib.suppress(OSError, RuntimeError):
                self._process.stdin.write(
                    dump({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}) + b"\n"
                )

    async def _write(self, message: Json) -> None:
        if self.ended.is_set() or not self._process or not self._process.stdin:
            raise ChildDied(self.obituary())
        try:
            self._process.stdin.write(dump(message) + b"\n")
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError) as error:
            raise ChildDied(f"{self.launch.name} no longer reads: {error}") from error

    async def _read_stdout(self) -> None:
        stdout = self._process and self._process.stdout
        lines = Lines(self.line_bytes)
        while stdout and (chunk := await stdout.read(_CHUNK)):
            for line in lines.feed(chunk):
                self._take(line)
        # The end of stdout is the end of the server, even where the process lingers a moment.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._exited()
        self.ended.set()
        died = ChildDied(self.obituary())
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(died)
                waiting.answer.exception()  # retrieved, should its caller be gone

    async def _watch(self) -> None:
        """What the server started may hold its stdout open after its death: it goes too, so that the death is seen."""
        await self._exited()
        self._signal(signal.SIGKILL)

    async def _exited(self) -> None:
        """Waits for the process alone: `Process.wait` also waits for its pipes, which what it started may hold open."""
        while self._process and self._process.returncode is None:  # noqa: ASYNC110 - asyncio tells nobody else
            await asyncio.sleep(_POLL_SECONDS)

    def _take(self, line: bytes | Oversized) -> None:
        if isinstance(line, Oversized):
            self.counts.oversized += 1
            log.warning("%s: skipped a message of %d bytes", self.launch.name, line.size)
            self._settle(
                line.id, TooLong(f"the answer has {line.size} bytes, more than {self.line_bytes}: ask for less")
            )
            return
        try:
            message = json.loads(line)
            if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
                raise ValueError("no JSON-RPC message")  # noqa: TRY301 - one place for all that is garbage
        except (ValueError, RecursionError):
            self.counts.garbage += 1
            if self.counts.garbage <= _LOGGED_GARBAGE:
                log.warning("%s: skipped what is not JSON-RPC on stdout: %r", self.launch.name, line[:200])
            return
        if "method" in message:
            self._asked(message)
        else:
            self._settle(message.get("id"), message)

    def _settle(self, number: object, outcome: Json | Exception) -> None:
        waiting = self._waiting.get(number) if isinstance(number, int) else None
        if waiting is None or waiting.answer.done():
            return  # cancelled or timed out meanwhile
        if isinstance(outcome, Exception):
            waiting.answer.set_exception(outcome)
        else:
            waiting.answer.set_result(outcome)

    def _asked(self, message: Json) -> None:
        """A request or notification of the child's own. It may ping; it has no model and no user to ask here."""
        method, params = message["method"], message.get("params") or {}
        if method == "notifications/progress":
            waiting = self._waiting.get(params.get("progressToken", 0))
            if waiting and waiting.progress:
                waiting.progress(params)
        elif method == "notifications/tools/list_changed" and self.tools_changed:
            self.tools_changed()
        elif "id" in message and self._process and self._process.stdin:
            reply = Rejection(METHOD_NOT_FOUND, f"{method} is not offered here", message["id"]).body()
            if method == "ping":
                reply = {"jsonrpc": "2.0", "id": message["id"], "result": {}}
            with contextlib.suppress(OSError, RuntimeError):
                self._process.stdin.write(dump(reply) + b"\n")

    async def _read_stderr(self) -> None:
        stderr = self._process and self._process.stderr
        lines = Lines(_CHUNK)
        while stderr and (chunk := await stderr.read(_CHUNK)):
            for line in lines.feed(chunk):
                text = line.decode(errors="replace") if isinstance(line, bytes) else f"({line.size} bytes)"
                self._stderr.append(text[:_STDERR_WIDTH])
                log.debug("%s: %s", self.launch.name, text[:_STDERR_WIDTH])

    def last_words(self) -> str:
        """The end of stderr, as it follows a message; empty if there was none."""
        return "\nlast lines of stderr:\n" + "\n".join(list(self._stderr)[-10:]) if self._stderr else ""

    def obituary(self) -> str:
        """How it ended."""
        code = self._process.returncode if self._process else None
        how = f"exit code {code}" if code is None or code >= 0 else f"signal {signal.Signals(-code).name}"
        why = f" ({self.killed_because})" if self.killed_because else ""
        return f"the process of {self.launch.name} ended while it had the call: {how}{why}"

    def resident_bytes(self) -> int:
        """Its resident memory; 0 once it is gone."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:  # noqa: PTH123 - read every few seconds, kept cheap
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def kill(self, reason: str) -> None:
        """Ends it at once, with all that it started; its calls fail with `ChildDied`."""
        self.killed_because = self.killed_because or reason
        self._signal(signal.SIGKILL)

    async def stop(self, *, grace: float) -> None:
        """Ends it: end of its stdin, then SIGTERM, then SIGKILL, each after half of `grace` seconds."""
        if grace and self._process and self._process.returncode is None and self._process.stdin:
            with contextlib.suppress(OSError, RuntimeError):
                self._process.stdin.close()
            await self._wait(grace / 2)
            if self._process.returncode is None:
                self._signal(signal.SIGTERM)
                await self._wait(grace / 2)
        self._signal(signal.SIGKILL)
        await self._exited()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.ended.set()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._exited()

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            # The group outlives its leader while anything that the server started does.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
