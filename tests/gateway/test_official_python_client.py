"""The official Python SDK's client, unmodified, in both eras."""

from __future__ import annotations

import asyncio
import json

import httpx
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from e2e.gateway.client import connected
from e2e.gateway.lab import Backend, Gateway, Lab, eventually, server

ERAS = ("2026-07-28", "legacy", "auto")


@pytest.mark.parametrize("era", ERAS)
async def test_it_lists_and_calls(gateway: Gateway, era: str) -> None:
    async with connected(gateway, era) as client:
        assert {"echo", "add", "pay"} <= {tool.name for tool in (await client.list_tools()).tools}
        result = await client.call_tool("add", {"a": 20, "b": 22})
        assert result.structured_content == {"sum": 42}
        assert not result.is_error


@pytest.mark.parametrize("era", ERAS)
async def test_it_gets_progress_while_the_tool_runs(gateway: Gateway, era: str) -> None:
    seen: list[tuple[float, float | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total))

    async with connected(gateway, era) as client:
        await client.call_tool("progress", {"steps": 3}, progress_callback=on_progress)
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("era", ERAS)
async def test_errors_of_the_gateway_are_results_with_a_typed_outcome(gateway: Gateway, era: str) -> None:
    async with connected(gateway, era) as client:
        result = await client.call_tool("add", {"a": "one", "b": 2})
    assert result.is_error
    assert (result.meta or {})["pinnace.dev/outcome"] == "invalid_arguments"
    assert (result.meta or {})["pinnace.dev/error"]["path"] == "$.a"


@pytest.mark.parametrize("era", ERAS)
async def test_its_cancellation_reaches_the_tool(own: Lab, era: str) -> None:
    backend = own.backend()
    gateway = own.gateway({"servers": [server("plain", backend)]})
    async with connected(gateway, era) as client:
        call = asyncio.create_task(client.call_tool("sleep", {"seconds": 60}))
        await asyncio.to_thread(eventually, "it runs", lambda: backend.ran("sleep"))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.to_thread(eventually, "cancelled", lambda: "cancelled" in backend.ran("sleep")[-1])


@pytest.mark.parametrize("era", ERAS)
async def test_a_hundred_calls_share_one_client(gateway: Gateway, era: str) -> None:
    async with connected(gateway, era) as client:
        results = await asyncio.gather(*(client.call_tool("echo", {"text": str(number)}) for number in range(100)))
    assert [json.loads(json.dumps(each.structured_content))["result"] for each in results] == [
        str(number) for number in range(100)
    ]


async def test_a_session_survives_its_gateway(own: Lab) -> None:
    """Before 2026-07-28 clients have a session: another gateway with the same key takes it over."""
    gateway = own.gateway({"servers": [server("plain", own.backend())]})
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }  # fmt: skip
    accept = {"Accept": "application/json, text/event-stream"}
    session = gateway.post("/mcp", hello, **accept).headers["Mcp-Session-Id"]
    gateway.stop()
    gateway.start()
    gateway.wait_ready()
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    assert gateway.post("/mcp", ping, **{"Mcp-Session-Id": session, **accept}).json()["result"] == {}


def test_a_session_is_of_one_tenant_and_ends_when_it_is_deleted(gateway: Gateway) -> None:
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}}
    session = gateway.post("/mcp", hello).headers["Mcp-Session-Id"]
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    assert gateway.post("/mcp", ping, **{"Mcp-Session-Id": session + "x"}).status_code == 404
    ended = httpx.delete(gateway.mcp, headers={**gateway.headers, "Mcp-Session-Id": session}, trust_env=False)
    assert ended.status_code == 200
    assert gateway.post("/mcp", ping, **{"Mcp-Session-Id": session}).status_code == 404


async def test_listeners_hear_that_the_list_of_tools_changed(own: Lab) -> None:
    first, second = own.backend("first"), own.backend("second", extra="search")
    gateway = own.gateway({"servers": [server("first", first)]})
    async with connected(gateway, "2026-07-28") as client, client.listen(tools_list_changed=True) as events:
        gateway.configure({"servers": [server("first", first), server("second", second, include=["search"])]})
        async with asyncio.timeout(20):
            async for _ in events:
                break
        assert "search" in {tool.name for tool in (await client.list_tools(cache_mode="refresh")).tools}


async def test_a_header_that_contradicts_the_body_is_refused(gateway: Gateway) -> None:
    body = {
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "pay", "arguments": {"amount": 1},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    }  # fmt: skip
    sent = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "echo"}
    answer = gateway.post("/mcp", body, **sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)


async def test_a_wrong_token_is_an_error_of_the_client(gateway: Gateway) -> None:
    async with create_mcp_http_client(headers={"Authorization": "Bearer wrong"}) as http:
        with pytest.raises((MCPError, httpx2.HTTPError, ExceptionGroup)):
            async with Client(streamable_http_client(gateway.mcp, http_client=http)) as client:
                await client.list_tools()


def test_json_only_servers_do(own: Lab) -> None:
    backend: Backend = own.backend(flag="--json")
    gateway = own.gateway({"servers": [server("plain", backend)]})
    assert gateway.call("echo", {"text": "x"})["outcome"] == "ok"
