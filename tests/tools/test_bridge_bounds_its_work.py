"""Queues, deadlines, cancellation, draining."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from pinnace.tools.outcome import Outcome

from .conftest import FAULTY, Caller, Start, eventually
from .test_bridge_survives_its_children import waiting


async def test_a_call_over_the_queue_is_told_when_to_come_again(faulty: Start, tmp_path: Path) -> None:
    served = await faulty(concurrency=1, queue=1)
    first, _ = await waiting(served, tmp_path)
    second = asyncio.create_task(served.ok())
    await eventually(lambda: served.caller.metric("pinnace_serve_queued"))
    message = served.caller.message("tools/call", {"name": "echo", "arguments": {"text": "x"}})
    async with served.caller.http.post(
        f"{served.caller.url}/mcp", json=message, headers=served.caller.headers(message)
    ) as answer:
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await answer.json())["error"]["data"]["outcome"] == "overloaded"
    (tmp_path / "one").touch()
    assert (await first).outcome is Outcome.OK
    assert await second


async def test_a_call_that_waits_beyond_its_deadline_never_reaches_a_process(faulty: Start, tmp_path: Path) -> None:
    served = await faulty(concurrency=1)
    first, _ = await waiting(served, tmp_path)
    late = await served.caller.call("wait", 0.1, begun=str(tmp_path / "late.begun"), file=str(tmp_path / "late"))
    assert late.outcome is Outcome.TIMEOUT
    (tmp_path / "one").touch()
    assert (await first).outcome is Outcome.OK
    assert await served.ok()
    assert not (tmp_path / "late.begun").exists()


async def test_calls_of_one_process_run_side_by_side_up_to_its_concurrency(faulty: Start, tmp_path: Path) -> None:
    served = await faulty(concurrency=3)
    tasks = [(await waiting(served, tmp_path, f"call{i}"))[0] for i in range(3)]
    for i in range(3):
        (tmp_path / f"call{i}").touch()
    assert [result.outcome for result in await asyncio.gather(*tasks)] == [Outcome.OK] * 3


async def test_a_caller_that_goes_away_cancels_its_call_in_the_process(faulty: Start, tmp_path: Path) -> None:
    served = await faulty()
    task, _ = await waiting(served, tmp_path)
    task.cancel()  # closes the connection
    await eventually((tmp_path / "one.cancelled").exists)
    assert await served.ok()


async def test_a_caller_may_ask_for_more_time_than_the_default(faulty: Start, tmp_path: Path) -> None:
    served = await faulty(call_seconds=0.2)
    task, _ = await waiting(served, tmp_path, "patient", seconds=20)
    late, _ = await waiting(served, tmp_path, "default")
    assert (await late).outcome is Outcome.TIMEOUT
    (tmp_path / "patient").touch()
    assert (await task).outcome is Outcome.OK


@pytest.mark.parametrize(("session", "cancels"), [("mine", True), ("another", False)])
async def test_a_cancel_notification_ends_the_call_of_the_same_session_only(
    faulty: Start, tmp_path: Path, session: str, cancels: bool
) -> None:
    served = await faulty()
    caller = served.caller
    begun = tmp_path / "begun"
    message = caller.message(
        "tools/call", {"name": "wait", "arguments": {"begun": str(begun), "file": str(tmp_path / "f")}}
    )

    async def call() -> dict[str, object]:
        headers = caller.headers(message) | {"X-Pinnace-Session": "mine"}
        async with caller.http.post(f"{caller.url}/mcp", json=message, headers=headers) as answer:
            return await answer.json()

    task = asyncio.create_task(call())
    await eventually(begun.exists)
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": message["id"]}}
    async with caller.http.post(f"{caller.url}/mcp", json=note, headers={"X-Pinnace-Session": session}) as answer:
        assert answer.status == 202
    if cancels:
        await eventually((tmp_path / "f.cancelled").exists)
        assert (await task)["error"]
    else:
        (tmp_path / "f").touch()
        assert (await task)["result"]


@asynccontextmanager
async def command(
    *arguments: str, env: dict[str, str] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`pinnace tools serve …` as a process, and its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from pinnace.cli import main; main()", "tools", "serve"),
        *("--host", "127.0.0.1", "--port", "0", *arguments),
        stderr=asyncio.subprocess.PIPE,
        env=dict(os.environ) | (env or {}),
    )
    assert process.stderr
    try:
        async with asyncio.timeout(30):
            while b"is served at" not in (line := await process.stderr.readline()):
                assert line, "the command ended"
        yield process, line.decode().split()[-1].removesuffix("/mcp")
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_sigterm_lets_the_call_in_flight_end_and_takes_no_new_one(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with command("--drain-delay", "0.2", "--drain-seconds", "20", "--", *FAULTY) as (process, url):
        caller = Caller(url, http)
        await caller.becomes_ready()
        begun = tmp_path / "begun"
        task = asyncio.create_task(caller.call("wait", begun=str(begun), file=str(tmp_path / "file")))
        await eventually(begun.exists)
        process.send_signal(signal.SIGTERM)

        async def draining() -> bool:
            return (await caller.ready())[1]["message"] == "draining"

        await eventually(draining)

        async def refused() -> bool:
            return (await caller.ask("tools/call", {"name": "echo", "arguments": {"text": "x"}}))[0] == 503

        await eventually(refused)
        assert not task.done()
        (tmp_path / "file").touch()
        assert (await task).outcome is Outcome.OK
        assert await process.wait() == 0
        assert not Path(f"/proc/{begun.read_text()}").exists()


async def test_a_second_signal_ends_it_at_once(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with command("--drain-delay", "600", "--", *FAULTY) as (process, url):
        caller = Caller(url, http)
        await caller.becomes_ready()
        process.send_signal(signal.SIGTERM)

        async def draining() -> bool:
            return (await caller.ready())[1]["message"] == "draining"

        await eventually(draining)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
