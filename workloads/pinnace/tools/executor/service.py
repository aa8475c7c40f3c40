"""PID 1 of the sandbox container: does what the agent asks. `python -I -m pinnace.tools.executor.service SETTINGS`.

The connection is made once, before any code of a model runs, to a socket that this container can't replace (the agent
listens, and the folder is mounted read-only here). When it breaks, this process ends, and as PID 1 takes everything in
its container along: the next one starts clean.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import signal
import sys
from contextlib import suppress

from pinnace.tools.executor import frames, linux
from pinnace.tools.executor.frames import Message
from pinnace.tools.executor.interpreter import Ended
from pinnace.tools.executor.isolation import probe
from pinnace.tools.executor.settings import Settings
from pinnace.tools.executor.supervisor import Refused, Supervisor

log = logging.getLogger("executor")

_CONNECT_SECONDS = 120.0
_UNAVAILABLE = 69
_OPERATIONS = frozenset(
    {"clean", "arm", "python", "python_reset", "shell", "file", "server", "job_start", "job_output", "job_kill"}
)


class Service:
    """Takes requests `{id, op, …}`, runs them side by side, answers `{id, …}`; `{op: cancel, id}` ends one early."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._running: dict[int, asyncio.Task[None]] = {}
        self._writing = asyncio.Lock()

    async def serve(self) -> None:
        """Until the agent closes the connection. Raises `OSError` where it can't be reached."""
        reader, writer = await self._connect()
        self._writer = writer
        isolation = self._supervisor.isolation
        await self._send(
            {"hello": 1, "isolation": isolation.level, "pid": os.getpid(), "python": platform.python_version()}
        )
        log.info("connected; isolation: %s", isolation.level)
        decoder = frames.Decoder()
        while data := await reader.read(1 << 16):
            for request in decoder.feed(data):
                self._take(request)
        for task in self._running.values():
            task.cancel()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The agent may start after us."""
        deadline = asyncio.get_running_loop().time() + _CONNECT_SECONDS
        while True:
            try:
                return await asyncio.open_unix_connection(self._supervisor.settings.socket)
            except OSError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.05)

    def _take(self, request: Message) -> None:
        number = int(request["id"])
        if request["op"] == "cancel":
            if task := self._running.get(number):
                task.cancel()
            return
        task = asyncio.create_task(self._answer(number, request))
        self._running[number] = task
        task.add_done_callback(lambda _: self._running.pop(number, None))

    async def _answer(self, number: int, request: Message) -> None:
        try:
            reply = await self._do(number, request)
        except Refused as refused:
            reply = {"problem": refused.problem, "message": str(refused)}
        except Ended as ended:
            reply = {"ended": ended.why, "status": ended.status}
        except Exception:  # a request of the agent must get an answer, or its call would hang
            log.exception("%s", request["op"])
            reply = {"problem": "failed", "message": "the executor failed; see its log"}
        with suppress(ConnectionError):
            await self._send(reply | {"id": number})

    async def _do(self, number: int, request: Message) -> Message:
        operation = request["op"]
        if operation == "tar":

            async def more(chunk: Message) -> None:
                await self._send({"id": number, "chunk": str(chunk["chunk"])})

            return await self._supervisor.tar(request, more)
        if operation == "clean":
            return await self._supervisor.clean()
        if operation not in _OPERATIONS:
            raise Refused("invalid", f"unknown operation {operation!r}")
        reply: Message = await getattr(self._supervisor, operation)(request)
        return reply

    async def _send(self, message: Message) -> None:
        async with self._writing:
            self._writer.write(frames.encode(message))
            await self._writer.drain()


async def run(settings: Settings) -> int:
    """Returns the exit code."""
    for number in (signal.SIGINT, signal.SIGUSR1):  # as PID 1, a signal without handler from inside is nothing
        signal.signal(number, signal.SIG_DFL)
    descriptor = linux.signal_descriptor([signal.SIGCHLD, signal.SIGTERM])
    linux.become_subreaper()
    isolation = probe(
        workspace=settings.workspace, scratch=settings.scratch, network=settings.network, bubblewrap=settings.bubblewrap
    )
    supervisor = Supervisor(settings, isolation)
    stopped = asyncio.Event()

    def on_signal() -> None:
        for number, sender in linux.read_signals(descriptor):
            # As PID 1 only those outside (pid 0 to us: kubelet's runtime) may end us, not the code in here.
            if number == signal.SIGTERM and (os.getpid() != 1 or sender == 0):
                stopped.set()
        supervisor.reap()

    asyncio.get_running_loop().add_reader(descriptor, on_signal)
    linux.hide_from_ptrace()
    tasks: list[asyncio.Task[object]] = []
    try:
        await supervisor.clean()
        tasks = [
            asyncio.create_task(work) for work in (Service(supervisor).serve(), supervisor.watch(), stopped.wait())
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except (OSError, Ended, TimeoutError, frames.BadFrame):
        log.exception("the executor can't go on")
        return _UNAVAILABLE
    finally:
        for task in tasks:
            task.cancel()
        supervisor.end()
    return 0


def main() -> None:
    """Settings come as JSON in the only argument."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    settings = Settings(**json.loads(sys.argv[1]))
    sys.exit(asyncio.run(run(settings)))


if __name__ == "__main__":
    main()
