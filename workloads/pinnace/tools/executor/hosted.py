"""A server of the catalogue in a lease's sandbox. `python -I -m pinnace.tools.executor.hosted NAME WORKSPACE`.

Supervises the server's process as `pinnace tools serve` does, behind the control socket instead of HTTP. Everything is
made at the first request: a sandbox that is only kept warm pays for none of it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinnace.tools.executor.channel import Channel
from pinnace.tools.executor.frames import Message
from pinnace.tools.executor.harden import Hardening, harden

if TYPE_CHECKING:
    from pinnace.tools.serve.run import Bridge

_LIST_SECONDS = 60.0


class Hosted:
    """One server. `environment` is the lease's."""

    def __init__(self, name: str, workspace: Path) -> None:
        self._name, self._workspace = name, workspace
        self._environment: dict[str, str] = {}
        self._bridge: Bridge | None = None

    async def arm(self, environment: dict[str, str]) -> None:
        """The server that runs, if one does, was started without them."""
        if self._bridge is not None and environment != self._environment:
            await self._bridge.pool.stop()
            self._bridge = None
        self._environment = environment

    def _running(self) -> Bridge:
        if self._bridge is None:
            from pinnace.tools.catalogue import entry
            from pinnace.tools.serve.cli import of_entry
            from pinnace.tools.serve.settings import Limits

            # Whether a tool has what it needs is the agent's decision; this side says what a call may not rely on.
            given = {**os.environ, **self._environment, "PINNACE_INTERNET": "allowed"}
            declared = frozenset(self._environment)
            self._bridge = of_entry(entry(self._name), given, declared, self._workspace, Limits())
            self._bridge.pool.start()
        return self._bridge

    async def tools(self) -> list[Message]:
        """As the server lists them. Raises `ServeError`, `CatalogueError`."""
        async with self._running().pool.child(seconds=_LIST_SECONDS) as child:
            return await child.tools(seconds=_LIST_SECONDS)

    async def call(self, name: str, arguments: Message, seconds: float) -> Message:
        """A `CallToolResult`, whatever happens. Raises `ServeError`, `CatalogueError`, `Rejection`."""
        return await self._running().server.call({"name": name, "arguments": arguments}, seconds=seconds)


async def _answer(hosted: Hosted, request: Message) -> Message:
    if request["op"] == "arm":
        await hosted.arm(request["environment"])
        return {}
    try:
        if request["op"] == "list":
            return {"tools": await hosted.tools()}
        return {"result": await hosted.call(request["name"], request["arguments"], request["seconds"])}
    except Exception as error:  # noqa: BLE001 - the server is somebody else's: whatever it does is this call's end
        return {"problem": "failed", "message": f"{type(error).__name__}: {error}"}


async def _serve(hosted: Hosted, channel: Channel) -> None:
    channel.send({"ready": True, "pid": os.getpid()})
    while (request := await asyncio.to_thread(channel.receive)) is not None:
        answer: dict[str, Any] = await _answer(hosted, request)
        channel.send(answer)


def main() -> None:
    """Serves the supervisor until it closes the control socket."""
    hardening = Hardening.from_environment()
    channel = Channel()
    harden(hardening, hide=False)
    asyncio.run(_serve(Hosted(sys.argv[1], Path(sys.argv[2])), channel))


if __name__ == "__main__":
    main()
