"""A real MCP server on the official SDK, as a process: `python backend.py PORT_FILE NOTES [OPTIONS]`.

NOTES is a folder where it writes what it did: a line in `<tool>.log` for each time that a tool really ran.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from starlette.requests import Request
from starlette.responses import PlainTextResponse

READ_ONLY, UNSAFE = ToolAnnotations(read_only_hint=True), ToolAnnotations(read_only_hint=False)


def build(name: str, notes: Path, extra: str) -> MCPServer:  # noqa: C901 - a list of tools
    server = MCPServer(name)

    def note(tool: str, text: str = "") -> None:
        with (notes / f"{tool}.log").open("a") as log:
            log.write(f"{name} {os.getpid()} {text}\n")

    @server.tool(annotations=READ_ONLY)
    async def echo(text: str) -> str:
        """Gives the text back."""
        return text

    @server.tool(annotations=READ_ONLY)
    async def who() -> str:
        """The server's name."""
        note("who")
        return name

    @server.tool(annotations=READ_ONLY)
    async def add(a: int, b: int) -> dict[str, int]:
        """Adds."""
        return {"sum": a + b}

    @server.tool(annotations=UNSAFE)
    async def pay(amount: int) -> str:
        """Must never run twice."""
        note("pay", str(amount))
        return f"paid {amount}"

    @server.tool(annotations=READ_ONLY)
    async def sleep(seconds: float) -> str:
        """Sleeps; notes when it is cancelled."""
        note("sleep", "begin")
        try:
            await anyio.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            note("sleep", "cancelled")
            raise
        return "slept"

    @server.tool(annotations=UNSAFE)
    async def pay_slowly(seconds: float) -> str:
        """Runs, then takes its time to answer."""
        note("pay_slowly")
        await anyio.sleep(seconds)
        return "paid"

    @server.tool(annotations=READ_ONLY)
    async def progress(steps: int, ctx: Context) -> str:
        """Reports each step."""
        for step in range(steps):
            await ctx.report_progress(step + 1, steps, f"step {step + 1}")
        return "done"

    @server.tool(annotations=READ_ONLY)
    async def fail(message: str) -> str:
        """Fails."""
        raise ToolError(message)

    @server.tool(annotations=READ_ONLY)
    async def big(size: int) -> str:
        """A long text."""
        return "x" * size

    @server.tool(annotations=READ_ONLY)
    async def head(name: str, request: Context) -> str:
        """A header of the request as it came here."""
        headers = request.headers or {}
        return headers.get(name.lower(), "")

    @server.tool(annotations=UNSAFE)
    async def die() -> str:
        """Runs, then the process is gone before it answers."""
        note("die")
        os._exit(1)

    if extra:

        @server.tool(name=extra, annotations=READ_ONLY)
        async def more(q: str) -> dict[str, str]:
            """One more tool."""
            note(extra, q)
            return {"result": f"{name} found {q}"}

    return server


def older(app: Any) -> Any:
    """The app as a server of 2025-06-18 would be: it knows no later revision."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers") or [])
        if headers.get(b"mcp-protocol-version") == b"2026-07-28":
            await PlainTextResponse("Bad Request: Unsupported protocol version", 400)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return refuse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port_file", type=Path)
    parser.add_argument("notes", type=Path)
    parser.add_argument("--name", default="backend")
    parser.add_argument("--extra", default="")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--older", action="store_true", help="refuse revision 2026-07-28, as servers before it do")
    given = parser.parse_args()
    server = build(given.name, given.notes, given.extra)

    async def healthz(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    server.custom_route("/healthz", methods=["GET"])(healthz)

    app: Any = server.streamable_http_app(json_response=given.json)
    if given.older:
        app = older(app)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", given.port))
    listener.listen(1024)
    partial = given.port_file.with_suffix(".partial")
    partial.write_text(str(listener.getsockname()[1]))
    partial.rename(given.port_file)
    config = uvicorn.Config(app, log_level="error", loop="uvloop", timeout_graceful_shutdown=5)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
