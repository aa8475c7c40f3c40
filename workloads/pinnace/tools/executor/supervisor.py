"""Starts the interpreters, keeps them within limits and ends them; `service` is its socket."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from pinnace.tools.executor.capture import Capture
from pinnace.tools.executor.codec import FrameCodec, Kind, ShellCodec
from pinnace.tools.executor.frames import Message
from pinnace.tools.executor.harden import Limits
from pinnace.tools.executor.interpreter import Ended, Interpreter, Why
from pinnace.tools.executor.isolation import Isolation
from pinnace.tools.executor.jobs import MOST, Job
from pinnace.tools.executor.processes import Process, kill_all_others, kill_tree, processes
from pinnace.tools.executor.settings import Settings, server_environment, shell_arming, start_environment
from pinnace.tools.executor.spawn import spawn
from pinnace.tools.executor.watch import Usage, usage

log = logging.getLogger("executor")

_BUSY_SECONDS, _IDLE_SECONDS = 0.05, 1.0
_THREADS = 8
"""Per process of the limit, on average."""
_RESET_SECONDS = 30.0
_SERVER = "server:"
_SERVER_MARGIN = 5.0
"""Seconds beyond a call's own, after which what hosts a server is hung."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Refused(Exception):
    """A request that can't be done; goes back to the agent as it is."""

    def __init__(self, problem: str, message: str) -> None:
        super().__init__(message)
        self.problem = problem


class Supervisor:
    """All interpreters and jobs of the pod."""

    def __init__(self, settings: Settings, isolation: Isolation) -> None:
        self.settings = settings
        self.isolation = isolation
        self.limits = Limits()
        self._environment: dict[str, str] = {}
        self._jobs: dict[str, Job] = {}
        self._job_count = 0
        self._resetting = False
        python = [sys.executable, "-I", "-B", "-m"]
        emptied = self.settings.emptied()
        kinds = [
            Kind("python", (*python, "pinnace.tools.executor.repl"), FrameCodec),
            Kind("shell", (*python, "pinnace.tools.executor.bash"), ShellCodec, interrupt="below"),
            Kind("files", (*python, "pinnace.tools.executor.files", *emptied), FrameCodec, interrupt="never"),
        ]
        hosted = (*python, "pinnace.tools.executor.hosted")
        kinds += [
            Kind(_server(name), (*hosted, name, settings.workspace), FrameCodec, interrupt="never")
            for name in settings.servers
        ]
        self._interpreters = {kind.name: self._interpreter(kind) for kind in kinds}

    def _interpreter(self, kind: Kind) -> Interpreter:
        return Interpreter(
            kind,
            # Our own file code needs no second wall, and has to see what it empties.
            prefix=() if kind.name == "files" else self.isolation.prefix,
            environment=(
                server_environment(self.settings)
                if kind.name.startswith(_SERVER)
                else start_environment(self.settings, None)
            ),
            folder=self.settings.workspace,
            output=self.limits.output_kib * 1024,
            grace=self.settings.grace_seconds,
        )

    # ---- what the agent asks for

    async def clean(self) -> Message:
        """Ends every process, empties the workspace and starts fresh interpreters. Raises `TimeoutError` or `Ended`."""
        self._resetting = True
        try:
            async with asyncio.timeout(_RESET_SECONDS):
                for interpreter in self._interpreters.values():
                    interpreter.epoch += 1
                self._end_all("reset")
                for interpreter in self._interpreters.values():
                    await interpreter.closed()
                    interpreter.arming = []
                    interpreter.renewed = False
                for job in self._jobs.values():
                    job.close()
                self._jobs.clear()
                self._environment = {}
                await asyncio.gather(*(interpreter.start() for interpreter in self._interpreters.values()))
                return await self._interpreters["files"].ask({"op": "empty"}, _RESET_SECONDS)
        finally:
            self._resetting = False

    async def arm(self, request: Message) -> Message:
        """Puts a lease's environment and limits in force in interpreters that run already."""
        self.limits = Limits(**request["limits"])
        environment = {str(name): str(value) for name, value in request["environment"].items()}
        if bad := [name for name in environment if not _NAME.fullmatch(name)]:
            raise Refused("invalid", f"no name of an environment variable: {bad[0]!r}")
        self._environment = environment
        limits = dataclasses.asdict(self.limits)
        arming: dict[str, Message] = {
            "python": {"op": "arm", "environment": environment, "limits": limits},
            "files": {"op": "arm", "limits": limits},
            "shell": {"command": shell_arming(environment, self.limits)},
        }
        arming |= {_server(name): {"op": "arm", "environment": environment} for name in self.settings.servers}
        for name, message in arming.items():
            interpreter = self._interpreters[name]
            interpreter.arming = [message]
            interpreter.out.resize(self.limits.output_kib * 1024)
            interpreter.err.resize(self.limits.output_kib * 1024)
        await asyncio.gather(*(self._interpreters[name].ask(message, 10) for name, message in arming.items()))
        return {}

    async def python(self, request: Message) -> Message:
        """Runs a cell."""
        return await self._run("python", {"op": "run", "code": request["code"]}, request["seconds"])

    async def shell(self, request: Message) -> Message:
        """Runs a command in the session's shell."""
        return await self._run("shell", {"command": request["command"]}, request["seconds"])

    async def python_reset(self, _request: Message) -> Message:
        """A fresh Python; files and shell stay."""
        interpreter = self._interpreters["python"]
        interpreter.end("reset")
        await interpreter.closed()
        await interpreter.start()
        interpreter.renewed = False
        return {}

    async def _run(self, name: str, message: Message, seconds: float) -> Message:
        interpreter = self._interpreters[name]
        try:
            reply = await interpreter.ask(message, seconds)
        except Ended as ended:
            reply = {"ended": ended.why, "status": ended.status}
            if not self._resetting:
                _in_background(interpreter.start())
        (stdout, out_left), (stderr, err_left) = interpreter.out.take(), interpreter.err.take()
        if interpreter.renewed:
            reply["renewed"] = True
            interpreter.renewed = False
        return reply | {"stdout": stdout, "stderr": stderr, "leftOut": out_left + err_left}

    async def server(self, request: Message) -> Message:
        """The tools of a server of the catalogue, or a call of one. It keeps the time itself."""
        interpreter = self._interpreters[_server(request["server"])]
        return await interpreter.ask({**request, "op": request["do"]}, request["seconds"] + _SERVER_MARGIN)

    async def file(self, request: Message) -> Message:
        """One file operation."""
        message = {"op": request["name"], "arguments": request["arguments"]}
        # The code may kill the helper whenever it likes. Two operations must not be done twice.
        once = request["name"] == "edit_file" or request["arguments"].get("append")
        epoch = self._interpreters["files"].epoch
        for last in (True,) if once else (False, True):
            try:
                return await self._interpreters["files"].ask(message, request["seconds"], epoch=epoch)
            except Ended as ended:
                if last or ended.why != "ended":
                    return {"ended": ended.why, "status": ended.status}
        raise AssertionError("the last round returns")

    async def tar(self, request: Message, more: Callable[[Message], Awaitable[None]]) -> Message:
        """The workspace as a stream of chunks."""
        message = {"op": "tar", "arguments": {"most": request["most"]}}
        return await self._interpreters["files"].ask(message, request["seconds"], more=more)

    async def job_start(self, request: Message) -> Message:
        """A command in the background, in the shell's current folder."""
        if sum(job.status is None for job in self._jobs.values()) >= MOST:
            raise Refused("overloaded", f"{MOST} background commands run already; end one with shell_kill")
        while len(self._jobs) >= 2 * MOST:
            oldest = next(job for job in self._jobs.values() if job.status is not None)
            self._jobs.pop(oldest.name).close()
        inner = self._interpreters["shell"].inner
        folder = self.settings.workspace
        with suppress(OSError):
            folder = os.readlink(f"/proc/{inner}/cwd")  # noqa: PTH115
        environment = start_environment(self.settings, self.limits) | self._environment
        command = [
            *self.isolation.prefix,
            sys.executable,
            "-I",
            "-B",
            "-m",
            "pinnace.tools.executor.bash",
            request["command"],
        ]
        child = spawn(command, environment=environment, folder=folder)
        self._job_count += 1
        size = self.limits.output_kib * 1024
        job = Job(f"job-{self._job_count}", request["command"], child, Capture(size), Capture(size))
        self._jobs[job.name] = job
        job.watch()
        return {"job": job.name}

    async def job_output(self, request: Message) -> Message:
        """What a job wrote since it was last asked."""
        return await self._job(request).output(request["wait"])

    async def job_kill(self, request: Message) -> Message:
        """Ends a job and all that it started."""
        job = self._job(request)
        job.end("killed")
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while job.status is None:
                    job.changed.clear()
                    await job.changed.wait()
        return await job.output(0)

    def _job(self, request: Message) -> Job:
        if job := self._jobs.get(str(request["job"])):
            return job
        known = ", ".join(self._jobs) or "none"
        raise Refused("not_found", f"no background command {request['job']!r}; there are: {known}")

    # ---- processes

    def reap(self) -> None:
        """Takes the exit status of every child that ended; orphans are children too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            for interpreter in self._interpreters.values():
                if interpreter.pid == pid:
                    interpreter.exited(code)
            for job in self._jobs.values():
                if job.child.pid == pid and job.status is None:
                    job.exited(code)

    def _roots(self) -> dict[int, Interpreter | Job]:
        found: dict[int, Interpreter | Job] = {}
        for interpreter in self._interpreters.values():
            if interpreter.pid is not None:
                found[interpreter.pid] = interpreter
        return found | {job.child.pid: job for job in self._jobs.values() if job.status is None}

    def _end_all(self, why: Why) -> None:
        if os.getpid() == 1:
            for each in self._roots().values():
                if isinstance(each, Interpreter):
                    each.mark(why)
            kill_all_others()
            return
        for each in self._roots().values():
            each.end(why)
        self._end_orphans(processes())

    def end(self) -> None:
        """Everything, for good."""
        self._end_all("reset")

    def _end_orphans(self, table: Mapping[int, Process]) -> None:
        """What lost its interpreter became our child: nothing outlives what started it."""
        known, us = self._roots(), os.getpid()
        for process in table.values():
            if process.parent == us and process.pid not in known and process.state != "Z":
                kill_tree(process.pid)

    async def watch(self) -> None:
        """Keeps processes and memory within the lease's limits, and ends orphans."""
        while True:
            busy = any(interpreter.running for interpreter in self._interpreters.values())
            await asyncio.sleep(_BUSY_SECONDS if busy else _IDLE_SECONDS)
            if not self._resetting:
                table = processes()
                self._end_orphans(table)
                self._look(table)

    def _look(self, table: Mapping[int, Process]) -> None:
        """The tree that uses most is ended where all together use too much."""
        roots = self._roots()
        found = {pid: usage(pid, table) for pid in roots}
        total = sum(found.values(), Usage())
        if total.processes > self.limits.processes or total.threads > _THREADS * self.limits.processes:
            why: Why = "processes"
            worst = max(roots, key=lambda pid: found[pid].threads)
        elif total.resident > self.limits.memory_mib * 2**20:
            why, worst = "memory", max(roots, key=lambda pid: found[pid].resident)
        else:
            return
        log.warning("over the limit of %s: %s of it in tree %d", why, found[worst], worst)
        if not roots[worst].end(why):
            self._end_all(why)


def _server(name: str) -> str:
    """Of the interpreter that hosts it: no server's name has a colon."""
    return f"{_SERVER}{name}"


_tasks: set[asyncio.Task[Any]] = set()


def _in_background(work: Awaitable[Any]) -> asyncio.Task[Any]:
    """Runs on; held here, since the loop holds tasks weakly only."""
    task = asyncio.ensure_future(_quietly(work))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def _quietly(work: Awaitable[Any]) -> None:
    try:
        await work
    except Ended as ended:
        log.warning("an interpreter could not be started: %s, status %s", ended.why, ended.status)
