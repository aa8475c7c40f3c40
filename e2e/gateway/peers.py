"""What the gateway is measured beside, each a process with a `/mcp`: `python peers.py KIND PORT [BACKEND]`.

`echo` is the backend of all, `forward` the floor (bytes in, bytes out). `sdk` is a gateway as the official SDK makes it
easy: a server whose handler calls a client. `fastmcp` is FastMCP's proxy (run with the Python of its own environment).
Imports stand where they are used: each kind has other packages.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def _serve(app: Any, port: int) -> None:
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", loop="uvloop", access_log=False)


def echo(port: int, _backend: str) -> None:
    import mcp_types as types
    from mcp.server.lowlevel import Server

    hints = types.ToolAnnotations(read_only_hint=True)
    listed = types.ListToolsResult(tools=[types.Tool(name="echo", input_schema=SCHEMA, annotations=hints)])

    async def list_tools(_ctx: Any, _params: Any) -> types.ListToolsResult:
        return listed

    async def call_tool(_ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        text = str((params.arguments or {}).get("text", ""))
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)])

    server = Server("echo", on_list_tools=list_tools, on_call_tool=call_tool)
    _serve(server.streamable_http_app(json_response=True), port)


def sdk(port: int, backend: str) -> None:
    from mcp import Client
    from mcp.server.lowlevel import Server

    # A pinned revision: no negotiation with each connection, and one client for all calls. The SDK at its best.
    client = Client(backend, mode="2026-07-28")

    @asynccontextmanager
    async def lifespan(_server: Any) -> AsyncIterator[None]:
        async with client:
            yield

    async def list_tools(_ctx: Any, _params: Any) -> Any:
        return await client.list_tools()

    async def call_tool(_ctx: Any, params: Any) -> Any:
        return await client.call_tool(params.name, params.arguments)

    server = Server("sdk-gateway", on_list_tools=list_tools, on_call_tool=call_tool, lifespan=lifespan)
    _serve(server.streamable_http_app(json_response=True), port)


def forward(port: int, backend: str) -> None:
    """The floor: bytes in, bytes out, nothing looked at."""
    import aiohttp
    import uvloop
    from aiohttp import web

    async def main() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

            async def handle(request: web.BaseRequest) -> web.Response:
                kept = {
                    name: value for name, value in request.headers.items() if name not in {"Host", "Content-Length"}
                }
                async with http.post(backend, data=await request.read(), headers=kept) as answer:
                    kind = {"Content-Type": answer.headers["Content-Type"]}
                    return web.Response(body=await answer.read(), status=answer.status, headers=kind)

            runner = web.ServerRunner(web.Server(handle, access_log=None))
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            await asyncio.Event().wait()

    uvloop.run(main())


def fastmcp(port: int, backend: str) -> None:
    from fastmcp.server import create_proxy  # type: ignore[import-not-found]  # installed in its own environment

    proxy = create_proxy(backend, name="fastmcp-proxy")
    asyncio.run(
        proxy.run_http_async(
            show_banner=False,
            transport="http",
            host="127.0.0.1",
            port=port,
            path="/mcp",
            log_level="error",
            json_response=True,
            uvicorn_config={"access_log": False, "loop": "uvloop"},
        )
    )


if __name__ == "__main__":
    {"echo": echo, "sdk": sdk, "forward": forward, "fastmcp": fastmcp}[sys.argv[1]](
        int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""
    )
