"""A tool server that knows only revisions before 2026-07-28 serves clients of every revision."""

from __future__ import annotations

import asyncio

import pytest

from e2e.gateway.client import connected
from e2e.gateway.lab import Lab, eventually, server


@pytest.mark.parametrize("era", ["2026-07-28", "legacy"])
async def test_its_tools_are_called_with_progress_and_cancelled(own: Lab, era: str) -> None:
    backend = own.backend(flag="--older")
    gateway = own.gateway({"servers": [server("old", backend)]})
    gateway.wait_tools("add")
    seen: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with connected(gateway, era) as client:
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"sum": 3}
        await client.call_tool("progress", {"steps": 3}, progress_callback=on_progress)
        call = asyncio.create_task(client.call_tool("sleep", {"seconds": 60}))
        await asyncio.to_thread(eventually, "it runs", lambda: backend.ran("sleep"))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.to_thread(eventually, "cancelled", lambda: "cancelled" in backend.ran("sleep")[-1])
    assert seen == [1, 2, 3]


def test_its_lost_session_is_opened_again(own: Lab) -> None:
    backend = own.backend(flag="--older")
    gateway = own.gateway({"servers": [server("old", backend)]})
    gateway.wait_tools("pay")
    assert gateway.call("pay", {"amount": 1})["outcome"] == "ok"
    port = str(backend.port)
    backend.stop()
    backend.command[backend.command.index("--port") + 1] = port
    backend.start()
    assert backend.port
    assert gateway.call("pay", {"amount": 2})["outcome"] == "ok"
    assert [line.split()[-1] for line in backend.ran("pay")] == ["1", "2"]
