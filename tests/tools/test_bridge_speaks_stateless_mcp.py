"""What a client sees of a bridge when nothing goes wrong, and when the client itself does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from pinnace.tools.outcome import Outcome

from .conftest import Faulty, Start


async def test_the_official_client_lists_and_calls_the_tools_of_an_older_stdio_server(faulty: Start) -> None:
    served = await faulty()
    async with Client(f"{served.bridge.url}/mcp") as client:
        tools = await client.list_tools()
        result = await client.call_tool("echo", {"text": "grüße\n✓"})
    assert [tool.name for tool in tools.tools][:2] == ["echo", "wait"]
    assert len(tools.tools) == 12, "both pages of the server's list"
    assert getattr(result.content[0], "text", None) == "grüße\n✓"


async def test_the_official_client_sees_the_progress_of_a_call(faulty: Start) -> None:
    served = await faulty()
    seen: list[float] = []

    async def progress(value: float, total: float | None, message: str | None) -> None:
        seen.append(value)

    async with Client(f"{served.bridge.url}/mcp") as client:
        await client.call_tool("progress", {}, progress_callback=progress)
    assert seen == [0, 1, 2]


async def test_progress_arrives_while_the_call_goes_on(faulty: Start, tmp_path: Path) -> None:
    served = await faulty()
    caller = served.caller
    message = caller.message(
        "tools/call", {"name": "progress", "arguments": {"file": str(tmp_path / "go")}}, meta={"progressToken": "t"}
    )
    async with caller.http.post(f"{caller.url}/mcp", json=message, headers=caller.headers(message)) as answer:
        assert answer.content_type == "text/event-stream"
        events = []
        async for line in answer.content:
            if line.startswith(b"data: "):
                events.append(json.loads(line[6:]))
                (tmp_path / "go").touch()  # not before the first event is here
    assert [each["params"] for each in events[:-1]] == [
        {"progressToken": "t", "progress": i, "total": 3} for i in range(3)
    ]
    assert events[-1]["id"] == message["id"]
    assert events[-1]["result"]["content"][0]["text"] == "counted"


async def test_ids_of_different_callers_do_not_meet_in_the_child(faulty: Start) -> None:
    served = await faulty()
    for identity in ("same", "same", 7, 7):
        message = served.caller.message("tools/call", {"name": "echo", "arguments": {"text": repr(identity)}}) | {
            "id": identity
        }
        async with served.caller.http.post(
            f"{served.caller.url}/mcp", json=message, headers=served.caller.headers(message)
        ) as answer:
            body = await answer.json()
        assert body["id"] == identity
        assert body["result"]["content"][0]["text"] == repr(identity)


async def test_a_server_that_asks_for_a_model_is_told_that_there_is_none(faulty: Start) -> None:
    served = await faulty()
    assert (await served.call("ask")).text == "asked"
    assert await served.ok()


WRONG: list[tuple[str, dict[str, Any], dict[str, str], int, int]] = [
    ("a method that is not offered", {"method": "resources/list"}, {"Mcp-Method": "resources/list"}, 404, -32601),
    ("another method in the header", {}, {"Mcp-Method": "ping"}, 400, -32020),
    ("another tool in the header", {}, {"Mcp-Name": "die"}, 400, -32020),
    ("an older revision", {}, {"MCP-Protocol-Version": "2025-06-18"}, 400, -32022),
    ("no envelope", {"params": {"name": "echo", "arguments": {}}}, {}, 400, -32602),
    ("an id that is no id", {"id": [1]}, {}, 400, -32600),
    ("no method", {"method": None}, {}, 400, -32600),
    ("a tool that does not exist", {"params": "ehco"}, {"Mcp-Name": "ehco"}, 400, -32602),
]


@pytest.mark.parametrize(("case", "change", "headers", "status", "code"), WRONG, ids=[each[0] for each in WRONG])
async def test_a_wrong_request_is_answered_by_the_table_of_the_specification(
    faulty: Start, case: str, change: dict[str, Any], headers: dict[str, str], status: int, code: int
) -> None:
    served = await faulty()
    caller = served.caller
    message = caller.message("tools/call", {"name": "echo", "arguments": {"text": "x"}})
    if change.get("params") == "ehco":
        message["params"]["name"], change = "ehco", {}
    async with caller.http.post(
        f"{caller.url}/mcp", json=message | change, headers=caller.headers(message) | headers
    ) as answer:
        body = await answer.json()
    assert (answer.status, body["error"]["code"]) == (status, code), case
    if code == -32602 and "ehco" in str(headers):
        assert body["error"]["data"]["suggestions"] == ["echo"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"id": 1}'])
async def test_a_body_that_is_no_request_does_not_reach_the_server(faulty: Start, body: bytes) -> None:
    served = await faulty()
    async with served.caller.http.post(f"{served.caller.url}/mcp", data=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] in {-32700, -32600}


async def test_a_body_that_is_too_large_is_refused_before_it_is_read_whole(faulty: Start) -> None:
    served = await faulty(request_bytes=1000)
    async with served.caller.http.post(f"{served.caller.url}/mcp", data=b" " * 5000) as answer:
        assert answer.status == 413


async def test_discovery_names_the_revision_and_the_tools_capability(faulty: Start) -> None:
    served: Faulty = await faulty()
    _, answer = await served.caller.ask("server/discover")
    assert answer["result"]["supportedVersions"] == ["2026-07-28"]
    assert answer["result"]["capabilities"] == {"tools": {}}


async def test_metrics_count_calls_by_tool_and_outcome(faulty: Start) -> None:
    served = await faulty()
    await served.call("echo", text="x")
    await served.call("huge", seconds=0.0001, bytes=10)
    assert await served.caller.metric('pinnace_serve_calls_total{outcome="ok",tool="echo"}') == 1
    assert (await served.call("echo", text="y")).outcome is Outcome.OK
