"""One row of the table of attacks, its steps, and what must hold afterwards. Code prints BREACH where it got through."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pinnace.tools.outcome import Outcome

from e2e.sandbox.pod import Pod

SECRET = "secret-of-the-neighbour-5eed"

_PRELUDE = """
import ctypes, errno, mmap, os, resource, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what, function):
    try:
        result = function()
    except BaseException as error:
        print("stopped:", what, type(error).__name__, error)
    else:
        print("BREACH:", what, result)
def syscall(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""


@dataclass(frozen=True)
class Step:
    """One call of a session tool."""

    tool: str
    arguments: dict[str, Any]
    deadline: float = 60
    """Seconds that the caller waits."""


def nothing(_: Pod) -> None:
    """No more to look at."""


@dataclass(frozen=True)
class Attempt:
    """One row: the steps, the outcomes that are right, and what must hold afterwards."""

    name: str
    steps: Sequence[Step]
    last: frozenset[Outcome]
    """Right outcomes of the last step."""
    expected: frozenset[Outcome]
    """Right outcomes of every step."""
    says: str = ""
    """In the last step's text."""
    networked: bool = False
    """Runs in the pod that may use sockets."""
    afterwards: Callable[[Pod], None] = nothing


def python(code: str, seconds: float = 10) -> Step:
    return Step("python", {"code": _PRELUDE + code, "timeoutSeconds": seconds})


def shell(command: str, seconds: float = 10) -> Step:
    return Step("shell", {"command": command, "timeoutSeconds": seconds})


def file(tool: str, **arguments: Any) -> Step:
    return Step(tool, arguments)


def row(name: str, steps: Step | list[Step], last: str, says: str = "", **more: Any) -> Attempt:
    right = frozenset(Outcome(word) for word in last.split())
    given = steps if isinstance(steps, list) else [steps]
    # Steps before the last one prepare: how they end is theirs, as long as they end by themselves.
    every = right | ({Outcome.OK, Outcome.TOOL_ERROR} if len(given) > 1 else frozenset())
    return Attempt(name, given, right, frozenset(every), says, **more)


def few_processes(pod: Pod) -> None:
    """Within seconds only the supervisor and its interpreters are left."""
    deadline = time.monotonic() + 10
    count = 999
    while time.monotonic() < deadline:
        count = int(
            pod.tool("python", code="import os; sum(name.isdigit() for name in os.listdir('/proc'))").text or 999
        )
        if count <= 6:
            return
        time.sleep(0.05)
    raise AssertionError(f"{count} processes are left; {pod.log()}")


def nothing_grows(pod: Pod) -> None:
    """No daemon writes its heartbeat any more."""
    code = "import os, time; a = os.stat('/workspace/beat').st_size; time.sleep(0.4); os.stat('/workspace/beat').st_size - a"
    result = pod.tool("python", code=code)
    assert result.text == "0", result.text


def gone_after_reset(pod: Pod) -> None:
    status, answer = pod.request("POST", "/lease/reset", {})
    assert status == 200, answer
    assert pod.tool("list_files").text == "[empty]"
    few_processes(pod)


def no_mark(pod: Pod) -> None:
    result = pod.tool("find_files", pattern="PWNED*")
    assert result.text == "[no match]", result.text


def files_work(pod: Pod) -> None:
    pod.tool("shell", command="rm -rf /workspace/* /scratch/*")
    assert pod.tool("write_file", path="after.txt", content="x").ok


def next_lease_finds_nothing(pod: Pod) -> None:
    pod.release()
    pod.wait("free")
    pod.arm()
    look = "ls -A /workspace /scratch /dev/shm; env | grep RESIDUE; ipcs -m 2>/dev/null | grep 0x; ss -xl 2>/dev/null | grep residue"
    text = pod.tool("shell", command=look).text
    assert "residue" not in text.lower(), text


DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 1000)
        libc.prctl(36, 0)
        while True:
            with open("/workspace/beat", "a") as file: file.write(".")
            time.sleep(0.02)
    os._exit(0)
while not os.path.exists("/workspace/beat"): time.sleep(0.01)
"""

SEARCH = f"""
import glob
found = []
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    try: data = open(path, "rb").read()
    except OSError as error: continue
    if b"{SECRET[:12]}" + b"{SECRET[12:]}" in data or b"key-of-the-gate" + b"way" in data: found.append(path)
print("BREACH" if found else "stopped: nothing of others in /proc", found)
print(len(glob.glob("/proc/[0-9]*")), "processes seen")
"""
