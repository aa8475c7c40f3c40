"""Whatever a child does: the call in flight gets a typed outcome, the next call works."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from pinnace.tools.outcome import Outcome, ToolResult

from .conftest import Faulty, Start, eventually


async def waiting(
    served: Faulty, folder: Path, name: str = "one", seconds: float | None = None
) -> tuple[asyncio.Task[ToolResult], int]:
    """A call that is in flight, and the process that has it."""
    begun = folder / f"{name}.begun"
    task = asyncio.create_task(served.caller.call("wait", seconds, begun=str(begun), file=str(folder / name)))
    text = await eventually(lambda: begun.exists() and begun.read_text())
    return task, int(text)


async def test_a_call_whose_process_is_killed_is_unavailable_and_the_next_one_works(
    faulty: Start, tmp_path: Path
) -> None:
    served = await faulty()
    task, pid = await waiting(served, tmp_path)
    os.kill(pid, signal.SIGKILL)
    result = await task
    assert result.outcome is Outcome.UNAVAILABLE
    assert "SIGKILL" in result.text
    assert await served.ok()
    assert await served.caller.metric('pinnace_serve_restarts_total{reason="crash"}') == 1


async def test_only_the_calls_of_the_dead_process_fail(faulty: Start, tmp_path: Path) -> None:
    served = await faulty(processes=2)
    await eventually(lambda: len(served.bridge.pool.children()) == 2)
    one, first = await waiting(served, tmp_path, "one")
    two, second = await waiting(served, tmp_path, "two")
    assert first != second, "the second call went to the idle process"
    os.kill(first, signal.SIGKILL)
    assert (await one).outcome is Outcome.UNAVAILABLE
    (tmp_path / "two").touch()
    assert (await two).outcome is Outcome.OK


async def test_a_process_that_exits_by_itself_says_how(faulty: Start) -> None:
    served = await faulty()
    result = await served.call("die", code=41)
    assert (result.outcome, "exit code 41" in result.text) == (Outcome.UNAVAILABLE, True)
    assert await served.ok()


async def test_a_grandchild_that_holds_the_pipe_open_does_not_hide_the_death(faulty: Start) -> None:
    served = await faulty()
    assert (await served.call("orphan", seconds=10)).outcome is Outcome.UNAVAILABLE
    assert await served.ok()


async def test_a_hung_process_times_out_and_is_replaced(faulty: Start) -> None:
    served = await faulty()
    before = (await served.call("pid")).text
    assert (await served.call("hang", seconds=0.2)).outcome is Outcome.TIMEOUT
    assert await served.ok(), "waits for the new process if need be"
    assert (await served.call("pid")).text != before
    assert await served.caller.metric('pinnace_serve_restarts_total{reason="hung"}') == 1


async def test_a_slow_call_times_out_without_costing_the_process(faulty: Start, tmp_path: Path) -> None:
    served = await faulty()
    before = (await served.call("pid")).text
    task, _ = await waiting(served, tmp_path, seconds=0.3)
    assert (await task).outcome is Outcome.TIMEOUT
    await eventually((tmp_path / "one.cancelled").exists)
    assert (await served.call("pid")).text == before


async def test_what_is_not_json_rpc_on_stdout_is_skipped_and_counted(faulty: Start) -> None:
    served = await faulty()
    result = await served.call("garbage")
    assert (result.outcome, result.text) == (Outcome.OK, "after garbage")
    await eventually(lambda: _counted(served, "garbage", 5))


async def test_an_answer_that_is_too_long_fails_its_call_only(faulty: Start, tmp_path: Path) -> None:
    served = await faulty(line_bytes=200_000)
    task, _ = await waiting(served, tmp_path)
    result = await served.call("huge", bytes=3_000_000)
    assert result.outcome is Outcome.TOOL_ERROR
    assert "ask for less" in result.text
    assert (await served.call("huge", bytes=190_000)).outcome is Outcome.OK
    (tmp_path / "one").touch()
    assert (await task).outcome is Outcome.OK
    await eventually(lambda: _counted(served, "oversized", 1))


async def _counted(served: Faulty, kind: str, count: int) -> bool:
    return await served.caller.metric(f'pinnace_serve_skipped_lines_total{{kind="{kind}"}}') == count


async def test_a_crash_loop_is_reported_with_the_last_words_and_calls_fail_at_once(faulty: Start) -> None:
    served = await faulty("--die-at-start", "no such model", wait=False)

    async def reported() -> str:
        ready, status = await served.caller.ready()
        return status["message"] if not ready and "crash loop" in status["message"] else ""

    assert "no such model" in await eventually(reported)
    result = await served.call("echo", text="x")
    assert result.outcome is Outcome.UNAVAILABLE
    assert "no such model" in result.text


async def test_a_server_that_starts_slowly_is_ready_when_it_is(faulty: Start, tmp_path: Path) -> None:
    served = await faulty("--start-when", str(tmp_path / "go"), wait=False)
    assert not (await served.caller.ready())[0]
    early = asyncio.create_task(served.ok())
    (tmp_path / "go").touch()
    await served.caller.becomes_ready()
    assert await early, "a call that came too early waited"


async def test_a_command_that_does_not_exist_is_said_so(faulty: Start, tmp_path: Path) -> None:
    from pinnace.tools.serve.run import Bridge
    from pinnace.tools.serve.settings import Launch

    from .conftest import QUICK, Caller

    async with Bridge(Launch("gone", ("/no/such/program",), {}, tmp_path), QUICK, host="127.0.0.1", port=0) as bridge:
        http = (await faulty(wait=False)).caller.http
        caller = Caller(bridge.url, http)

        async def reported() -> bool:
            return "/no/such/program can't be run" in (await caller.ready())[1]["message"]

        await eventually(reported)


async def test_a_process_is_replaced_after_its_share_of_calls(faulty: Start) -> None:
    served = await faulty(recycle_calls=5)
    pids = {(await served.call("pid")).text for _ in range(20)}
    assert len(pids) >= 4
    assert await served.caller.metric('pinnace_serve_restarts_total{reason="calls"}') >= 3
    assert await served.caller.metric('pinnace_serve_restarts_total{reason="crash"}') == 0


async def test_a_process_that_grows_beyond_its_bound_is_replaced_between_calls(faulty: Start, tmp_path: Path) -> None:
    served = await faulty(memory_bytes=150 << 20)
    task, pid = await waiting(served, tmp_path)
    assert (await served.call("grow", mib=200)).outcome is Outcome.OK
    await eventually(lambda: not served.bridge.pool.children() or served.bridge.pool.children()[0].pid != pid)
    (tmp_path / "one").touch()
    assert (await task).outcome is Outcome.OK, "the call in flight ended first"
    assert await served.ok()
    assert await served.caller.metric('pinnace_serve_restarts_total{reason="memory"}') == 1


async def test_nothing_is_left_running_when_a_bridge_ends(faulty: Start, tmp_path: Path) -> None:
    served = await faulty(processes=2)
    pids = [child.pid for child in served.bridge.pool.children()]
    await served.bridge.pool.stop()
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
