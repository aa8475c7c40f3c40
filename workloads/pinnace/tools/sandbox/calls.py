"""From a tool call to a typed result: what the executor reports is a claim, the outcome is decided here."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from pinnace.tools.executor.frames import BadFrame, Message
from pinnace.tools.outcome import CallError, Outcome, ToolResult
from pinnace.tools.sandbox import hosted, toolset
from pinnace.tools.sandbox.lease import LimitsSpec
from pinnace.tools.sandbox.link import ExecutorLost
from pinnace.tools.sandbox.pod import Pod

_FILE_SECONDS = 30.0
_QUEUE = 8
"""Calls that may wait for one interpreter."""
_TEXT = 256 * 1024
_PICTURE = 4 * 1024 * 1024
_FRESH = {
    "python": "Python was started afresh: its variables are gone, the files are still there",
    "shell": "the shell was started afresh in /workspace: its variables are gone, the files are still there",
}
_PROBLEMS = {
    "denied": Outcome.DENIED,
    "invalid": Outcome.INVALID_ARGUMENTS,
    "overloaded": Outcome.OVERLOADED,
}


class Calls:
    """Runs the session tools on one pod."""

    def __init__(self, pod: Pod, groups: frozenset[str], *, workspace_bytes: int) -> None:
        self._pod, self._groups, self._workspace_bytes = pod, groups, workspace_bytes
        self._queued: Counter[str] = Counter()

    async def call(self, name: str, arguments: Mapping[str, Any], *, limits: LimitsSpec, deadline: float) -> ToolResult:
        """Never raises for what the model or its code did.

        Args:
            name: of the tool.
            arguments: as the model gave them.
            limits: of the lease.
            deadline: seconds that the caller will wait.
        """
        if found := self._pod.hosted.find(name):
            server, own = found
            work = self._hosted(server, own, arguments, min(limits.longest_seconds, deadline))
            return await self._queue(server, work)
        tool = toolset.TOOLS.get(name)
        if tool is None or tool.group not in self._groups:
            return _failed(Outcome.INVALID_ARGUMENTS, f"unknown tool {name!r}; use tools/list")
        try:
            given = tool.model_validate(dict(arguments))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
            return ToolResult(Outcome.INVALID_ARGUMENTS, error=CallError(f"{path}: {first['msg']}", path=path))
        return await self._queue(tool.group, self._run(given, limits, deadline))

    async def _queue(self, group: str, work: Coroutine[Any, Any, ToolResult]) -> ToolResult:
        """`work`, unless too many calls wait for the same already."""
        if self._queued[group] >= _QUEUE:
            work.close()
            return _failed(Outcome.OVERLOADED, f"{_QUEUE} calls wait for this session's {group} already")
        self._queued[group] += 1
        try:
            return await work
        except ExecutorLost as error:
            return _failed(Outcome.UNAVAILABLE, str(error))
        except BadFrame as error:
            return _failed(Outcome.INVALID_ARGUMENTS, f"the arguments are too long: {error}")
        except (KeyError, TypeError, ValueError, AttributeError):
            # The executor is not trusted: an answer of a shape that it does not give is an answer of somebody else.
            return _failed(Outcome.TOOL_ERROR, "the interpreter's answer was malformed; start it afresh")
        finally:
            self._queued[group] -= 1

    async def _hosted(self, server: str, tool: str, arguments: Mapping[str, Any], seconds: float) -> ToolResult:
        lease = self._pod.slot.lease
        if refused := self._pod.hosted.refusal(server, tool, lease.env if lease else ()):
            return refused
        reply = await self._pod.call(
            "server", seconds, server=server, do="call", name=tool, arguments=dict(arguments), seconds=seconds
        )
        return hosted.result(reply, server)

    async def _run(  # noqa: PLR0911 - a case each
        self, given: toolset.ToolCall, limits: LimitsSpec, deadline: float
    ) -> ToolResult:
        match given:
            case toolset.Python():
                seconds = _seconds(given.timeout_seconds, limits, deadline)
                reply = await self._pod.call("python", seconds, code=given.code, seconds=seconds)
                return _python(reply, seconds, limits)
            case toolset.PythonReset():
                await self._pod.call("python_reset", _FILE_SECONDS)
                return _text("Python was started afresh")
            case toolset.Shell(background=True):
                return _plain(await self._pod.call("job_start", _FILE_SECONDS, command=given.command), _started)
            case toolset.Shell():
                seconds = _seconds(given.timeout_seconds, limits, deadline)
                reply = await self._pod.call("shell", seconds, command=given.command, seconds=seconds)
                return _shell(reply, seconds, limits)
            case toolset.ShellOutput():
                wait = max(0.0, min(given.wait_seconds, deadline - 1))
                return _plain(await self._pod.call("job_output", wait + 5, job=given.job, wait=wait), _job)
            case toolset.ShellKill():
                return _plain(await self._pod.call("job_kill", _FILE_SECONDS, job=given.job), _job)
            case _:
                return await self._file(given, min(_FILE_SECONDS, deadline))

    async def _file(self, given: toolset.ToolCall, seconds: float) -> ToolResult:
        arguments: dict[str, Any] = given.model_dump()
        name = next(name for name, tool in toolset.TOOLS.items() if tool is type(given))
        match given:
            case toolset.EditFile():
                arguments = {
                    "path": given.path,
                    "old": given.old_text,
                    "new": given.new_text,
                    "every": given.replace_all,
                }
            case toolset.Upload():
                arguments["most"] = self._workspace_bytes
        reply = await self._pod.call("file", seconds, name=name, arguments=arguments, seconds=seconds)
        if "ended" in reply or reply.get("timedOut"):
            why = f"did not end within {seconds:g} s" if reply.get("ended") == "timeout" else "was ended"
            outcome = Outcome.TIMEOUT if reply.get("ended") == "timeout" else Outcome.UNAVAILABLE
            return _failed(outcome, f"the file tool {why}; try a smaller piece, or python")
        return _plain(reply, _file_result)


def _seconds(asked: float | None, limits: LimitsSpec, deadline: float) -> float:
    return max(0.05, min(asked or limits.timeout_seconds, limits.longest_seconds, deadline))


def _failed(outcome: Outcome, message: str, structured: Any = None) -> ToolResult:
    return ToolResult(outcome, ({"type": "text", "text": message},), structured, CallError(message))


def _text(text: str) -> ToolResult:
    return ToolResult(Outcome.OK, ({"type": "text", "text": text},))


def _plain(reply: Message, shown: Any) -> ToolResult:
    if "problem" in reply:
        outcome = _PROBLEMS.get(str(reply["problem"]), Outcome.TOOL_ERROR)
        return _failed(outcome, _clip(reply["message"]))
    result: ToolResult = shown(reply)
    return result


def _started(reply: Message) -> ToolResult:
    job = _clip(reply["job"])[:64]
    text = f"{job} runs in the background; use shell_output to see what it writes, shell_kill to end it"
    return ToolResult(Outcome.OK, ({"type": "text", "text": text},), {"job": job})


def _job(reply: Message) -> ToolResult:
    running, code = bool(reply["running"]), reply["exitCode"]
    state = "still running" if running else f"ended {_how(code)}"
    text = _join(_clip(reply["stdout"]), _marked("stderr", reply["stderr"]), f"[{state}]")
    structured = {
        "job": _clip(reply["job"])[:64],
        "running": running,
        "exitCode": code if isinstance(code, int) else None,
        "stdout": _clip(reply["stdout"]),
        "stderr": _clip(reply["stderr"]),
    }
    return ToolResult(Outcome.OK, ({"type": "text", "text": text},), structured)


def _file_result(reply: Message) -> ToolResult:
    content: list[dict[str, Any]] = [{"type": "text", "text": _clip(reply["text"])}]
    if "blob" in reply:
        blob = {"uri": "workspace:download", "mimeType": "application/octet-stream", "blob": str(reply["blob"])}
        content.append({"type": "resource", "resource": blob})
    data = reply.get("data")
    return ToolResult(Outcome.OK, tuple(content), data if isinstance(data, dict) else None)


def _python(reply: Message, seconds: float, limits: LimitsSpec) -> ToolResult:
    error = reply.get("error")
    structured = _streams(reply)
    if "value" in reply:
        structured["value"] = _clip(reply["value"])
    for name in ("seconds", "cpuSeconds"):
        if isinstance(reply.get(name), int | float):
            structured[name] = reply[name]
    if ending := _ending("python", reply, seconds, limits):
        return _with_output(*ending, reply, structured)
    notes = [f"[{_FRESH['python']}, since it had ended before this call]"] if reply.get("renewed") else []
    if error is not None:
        structured["error"] = {"type": _clip(error["type"])[:200], "message": _clip(error["message"])}
        text = _join(*notes, _clip(reply["stdout"]), _marked("stderr", reply["stderr"]), _clip(error["traceback"]))
        outcome, told = (
            Outcome.TOOL_ERROR,
            CallError(f"{structured['error']['type']}: {structured['error']['message'][:500]}"),
        )
    else:
        text = _join(*notes, _clip(reply["stdout"]), _marked("stderr", reply["stderr"]), structured.get("value", ""))
        outcome, told = Outcome.OK, None
    content = [{"type": "text", "text": text or "[no output]"}, *_pictures(reply.get("images") or [])]
    return ToolResult(outcome, tuple(content), structured, told)


def _shell(reply: Message, seconds: float, limits: LimitsSpec) -> ToolResult:
    structured = _streams(reply)
    if ending := _ending("shell", reply, seconds, limits):
        outcome, message = ending
        if reply.get("ended") == "ended" and isinstance(reply.get("status"), int) and reply["status"] >= 0:
            structured["exitCode"] = reply["status"]  # a script that says exit: its code is its result
            outcome = Outcome.OK if reply["status"] == 0 else Outcome.TOOL_ERROR
        return _with_output(outcome, message, reply, structured)
    code = reply["exitCode"]
    structured["exitCode"] = code if isinstance(code, int) else None
    notes = [f"[{_FRESH['shell']}, since it had ended before this call]"] if reply.get("renewed") else []
    ending_line = "" if code == 0 else f"[exit code {structured['exitCode']}]"
    text = _join(*notes, _clip(reply["stdout"]), _marked("stderr", reply["stderr"]), ending_line) or "[no output]"
    if code == 0:
        return ToolResult(Outcome.OK, ({"type": "text", "text": text},), structured)
    told = CallError(f"the command ended with exit code {structured['exitCode']}")
    return ToolResult(Outcome.TOOL_ERROR, ({"type": "text", "text": text},), structured, told)


def _ending(  # noqa: PLR0911 - a case each
    kind: str, reply: Message, seconds: float, limits: LimitsSpec
) -> tuple[Outcome, str] | None:
    """Where the call did not come to its own end: the outcome and what the model is told."""
    if reply.get("timedOut"):
        return Outcome.TIMEOUT, f"interrupted after {seconds:g} s; variables and files are kept"
    match reply.get("ended"):
        case None:
            return None
        case "timeout":
            return Outcome.TIMEOUT, f"did not end within {seconds:g} s nor on an interrupt; {_FRESH[kind]}"
        case "memory":
            used = f"used more than the session's {limits.memory_mib} MiB of memory"
            return Outcome.TOOL_ERROR, f"{used} and was ended; {_FRESH[kind]}"
        case "processes":
            used = f"started more than the session's {limits.processes} processes"
            return Outcome.TOOL_ERROR, f"{used} and was ended; {_FRESH[kind]}"
        case "protocol":
            return Outcome.TOOL_ERROR, f"wrote into the interpreter's own channel and was ended; {_FRESH[kind]}"
        case "reset":
            return Outcome.UNAVAILABLE, "the session was reset while this ran"
        case _:
            return Outcome.TOOL_ERROR, f"the interpreter ended {_how(reply.get('status'))}; {_FRESH[kind]}"


def _with_output(outcome: Outcome, message: str, reply: Message, structured: dict[str, Any]) -> ToolResult:
    text = _join(_clip(reply.get("stdout", "")), _marked("stderr", reply.get("stderr", "")), f"[{message}]")
    told = None if outcome is Outcome.OK else CallError(message)
    return ToolResult(outcome, ({"type": "text", "text": text},), structured, told)


def _streams(reply: Message) -> dict[str, Any]:
    left_out = reply.get("leftOut")
    streams: dict[str, Any] = {"stdout": _clip(reply.get("stdout", "")), "stderr": _clip(reply.get("stderr", ""))}
    if isinstance(left_out, int) and left_out:
        streams["bytesLeftOut"] = left_out
    return streams


def _how(status: Any) -> str:
    if not isinstance(status, int):
        return "in a way that nobody saw"
    if status >= 0:
        return f"with exit code {status}"
    with suppress(ValueError):
        return f"by signal {signal.Signals(-status).name}"
    return f"by signal {-status}"


def _pictures(images: list[Any]) -> list[dict[str, Any]]:
    return [
        {"type": "image", "mimeType": "image/png", "data": str(image["data"])}
        for image in images[:4]
        if image.get("mimeType") == "image/png" and len(str(image["data"])) <= _PICTURE
    ]


def _marked(name: str, text: Any) -> str:
    clipped = _clip(text)
    return f"[{name}]\n{clipped}" if clipped else ""


def _join(*parts: str) -> str:
    return "\n".join(part.rstrip("\n") for part in parts if part)


def _clip(text: Any) -> str:
    """Whatever the other side says it limited, limited here."""
    plain = str(text)
    if len(plain) <= _TEXT:
        return plain
    return f"{plain[:_TEXT]}\n[… {len(plain) - _TEXT:,} characters left out]"
