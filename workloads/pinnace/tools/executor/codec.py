"""How each kind of interpreter talks on its control socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from pinnace.tools.executor import frames
from pinnace.tools.executor.frames import Message


class Codec(Protocol):
    """How an interpreter talks."""

    def encode(self, request: Message) -> bytes: ...
    def feed(self, data: bytes) -> list[Message]: ...


class ShellCodec:
    """bash's side: a command ended by NUL; the exit code ended by NUL."""

    def __init__(self) -> None:
        self._held = b""

    def encode(self, request: Message) -> bytes:
        return str(request["command"]).replace("\0", "").encode(errors="surrogateescape") + b"\0"

    def feed(self, data: bytes) -> list[Message]:
        *whole, self._held = (self._held + data).split(b"\0")
        if len(self._held) > 64:
            raise frames.BadFrame("the shell's answer is no exit code")
        return [{"exitCode": int(part) if part.isdigit() else None} for part in whole]


class FrameCodec(frames.Decoder):
    """That of our own interpreters."""

    def encode(self, request: Message) -> bytes:
        return frames.encode(request)


@dataclass(frozen=True)
class Kind:
    """What distinguishes python, shell and files."""

    name: str
    command: tuple[str, ...]
    codec: Callable[[], Codec]
    interrupt: Literal["itself", "below", "never"] = "itself"
    """Where SIGINT goes. bash would end by it, so what it runs gets it; our own code is just ended."""
