"""The session's Python: keeps its variables from call to call. Started as `python -I -m pinnace.tools.executor.repl`.

It shares a process with the model's code, so nothing that it sends can be believed; it can only spoil its own session.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import resource
import signal
import sys
import time
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pinnace.tools.executor.channel import Channel
from pinnace.tools.executor.frames import Message
from pinnace.tools.executor.harden import Hardening, Limits, harden, limit
from pinnace.tools.executor.pictures import pictures

if TYPE_CHECKING:
    import asyncio

_VALUE_CHARACTERS = 32_768
_TRACEBACK_CHARACTERS = 16_384


class Repl:
    """Runs cells in one namespace, as a notebook does."""

    def __init__(self) -> None:
        self._cells = 0
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main = types.ModuleType("__main__")
        self._main.__dict__["__builtins__"] = __builtins__
        sys.modules["__main__"] = self._main

    def run(self, code: str) -> Message:
        """Runs one cell. `value` is the repr of a last expression, `error` a traceback of the user's own frames."""
        self._cells += 1
        name = f"<cell {self._cells}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        value: Any = None
        answer: Message = {}
        try:
            with _interruptible():
                value = self._execute(code, name)
                if value is not None:
                    self._main.__dict__["_"] = value
                    answer["value"] = _shortened(repr(value), _VALUE_CHARACTERS)
        except SystemExit as error:
            answer["error"] = {
                "type": "SystemExit",
                "message": str(error.code),
                "traceback": f"SystemExit: {error.code}",
            }
        except BaseException as error:  # noqa: BLE001 - whatever the code raises is its result
            answer["error"] = _described(error)
        if os.getpid() != self._pid:  # the code forked and let its child run on into our loop
            _flush()
            os._exit(0)
        try:
            answer["images"] = pictures(value)
        except Exception as error:  # noqa: BLE001 - a figure that can't be drawn must not hide the result
            answer.setdefault("error", _described(error))
        _flush()
        return answer

    def _execute(self, code: str, name: str) -> Any:
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        if tree.body:
            self._evaluate(compile(tree, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        if isinstance(last, ast.Expr):
            expression = ast.Expression(last.value)
            return self._evaluate(compile(expression, name, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        return None

    def _evaluate(self, compiled: types.CodeType) -> Any:
        value = eval(compiled, self._main.__dict__)  # noqa: S307 - what this process is for
        if compiled.co_flags & inspect.CO_COROUTINE:
            import asyncio  # most of what an interpreter's start would cost

            self._loop = self._loop or asyncio.new_event_loop()
            return self._loop.run_until_complete(value)
        return value


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT raises `KeyboardInterrupt` in the cell, and never in our own code."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _described(error: BaseException) -> Message:
    told = traceback.TracebackException.from_exception(error, compact=True)
    _trim(told, set())
    text = "".join(told.format())
    return {
        "type": type(error).__name__,
        "message": _shortened(str(error), 2000),
        "traceback": _shortened(text.rstrip(), _TRACEBACK_CHARACTERS),
    }


def _trim(told: traceback.TracebackException, seen: set[int]) -> None:
    """Takes our frames out of the traceback and of those that it was raised from."""
    if id(told) in seen:
        return
    seen.add(id(told))
    told.stack = traceback.StackSummary.from_list(frame for frame in told.stack if frame.filename != __file__)
    for other in (told.__cause__, told.__context__):
        if other is not None:
            _trim(other, seen)


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n[… {len(text) - limit:,} characters left out …]\n{text[-limit // 2 :]}"


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(Exception):  # the code may have closed or replaced them
            stream.flush()  # type: ignore[union-attr]  # None is among what is suppressed


def main() -> None:
    """Serves the supervisor until it closes the control socket."""
    hardening = Hardening.from_environment()
    channel = Channel()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]  # a TextIOWrapper here
    harden(hardening, hide=False)
    repl = Repl()
    sys.path.insert(0, "")  # from here on, so that nothing in the workspace can stand for a module of ours
    channel.send({"ready": True, "pid": os.getpid()})
    while (message := channel.receive()) is not None:
        if message["op"] == "arm":
            os.environ.update(message["environment"])
            limit(Limits(**message["limits"]))
            channel.send({})
            continue
        started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        answer = repl.run(str(message["code"]))
        now = resource.getrusage(resource.RUSAGE_SELF)
        answer["seconds"] = round(time.perf_counter() - started, 6)
        answer["cpuSeconds"] = round(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, 6)
        channel.send(answer)


if __name__ == "__main__":
    main()
