"""Tools by a real gateway: a lease for each attempt, the item's files in its workspace, outcomes as they are."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from pinnace.agent import Budget
from pinnace.evals import BadPlan, FolderBlobs, Item, Records, Shard, work
from pinnace.evals.errors import ToolsUnavailable
from pinnace.evals.report import summarise_run
from pinnace.evals.tools import GatewayOptions, GatewayTools, check_gateway
from pinnace.tools.outcome import Outcome

from e2e.apiserver import free_port
from e2e.faults.model import Answer, Request, scripted_model
from e2e.gateway import lab as laboratory
from e2e.gateway.lab import TOKEN, Gateway, Lab, eventually, lab, server
from e2e.sandbox.forward import forwarded
from e2e.sandbox.pod import KEY, pod
from e2e.world import serve_world

from .conftest import Setup, sums

PODS = 2
QUICK = Shard(concurrency=4, ttl=5, checkpoint_seconds=0.1)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Before the offline world and two real session pods: agent and executor in containers of their own."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "setpriv", "ip"))):
        pytest.skip("needs root, util-linux and iproute2: session pods are containers with two uids")
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(laboratory, "AGENTS_KEY", KEY)
        own = stack.enter_context(lab(tmp_path_factory.mktemp("lab")))
        urls = []
        for _ in range(PODS):
            running = stack.enter_context(pod(tmp_path_factory.mktemp("pod") / "pod"))
            running.wait("free", 60)
            urls.append(stack.enter_context(forwarded(running)))
        sessions = {"endpoints": urls, "servers": ["python", "shell", "files"]}
        made = own.gateway({"servers": [server("world", serve_world(own))], "sessions": sessions})
        made.wait_tools("search", "python", "upload")
        yield made


def free(gateway: Gateway) -> int:
    return int(gateway.metric("pinnace_tools_sessions", state="free"))


def tools(gateway: Gateway, **options: float) -> GatewayTools:
    return GatewayTools(GatewayOptions(gateway.url, TOKEN, **options))  # type: ignore[arg-type]


async def settled(gateway: Gateway) -> None:
    await asyncio.to_thread(eventually, "all are free again", lambda: free(gateway) == PODS, within=60)


async def test_attempts_do_not_see_each_others_files_and_read_the_items_own(
    gateway: Gateway, setup: Setup, tmp_path: Path
) -> None:
    """Six attempts on two sandboxes: each adds up its item's file, and finds no trace of another."""
    items = []
    for number in range(3):
        file = tmp_path / f"table-{number}.csv"
        file.write_text(f"a,b\n{number},100\n")
        items.append(Item(f"item-{number}", f"Add up table-{number}.csv", str(100 + number), files=(file,)))

    def script(request: Request) -> Answer:
        asked = next(message["content"] for message in request["messages"] if message["role"] == "user")
        assert "in your workspace: table-" in asked
        name = asked.partition("Add up ")[2].partition("\n")[0]
        results = [message["content"] for message in request["messages"] if message["role"] == "tool"]
        if not results:
            code = f"import csv, os\nopen('mark', 'a').write('x')\nrow = list(csv.reader(open('{name}')))[1]"
            return Answer(calls=[("python", {"code": f"{code}\nprint(sum(map(int, row)), sorted(os.listdir()))"})])
        total, _, listed = results[-1].partition(" ")
        return Answer(f"<answer>{total}</answer>" if listed.strip() == f"['mark', '{name}']" else f"saw {listed}")

    async with scripted_model(script) as model:
        plan, agent = setup(model.url, replace(sums(1), items=tuple(items)), attempts=2)
        agent = replace(agent, budget=Budget(32768, 256))  # sixteen tools have long schemas
        used = tools(gateway)
        records = Records(FolderBlobs(tmp_path / "out"), plan.place)
        done = await work(plan, agent, used, records, QUICK)
        await used.aclose()
        assert not done.crashed
        grades = records.read_grades(plan.units(), plan.grader)
        summary = summarise_run(plan, records.read(plan.units()), grades)
        assert (summary.right, summary.wrong) == (6, 0)
    await settled(gateway)


async def test_a_lease_is_given_back_whatever_ends_the_attempt(gateway: Gateway) -> None:
    used, item = tools(gateway), Item("a", "?", "x")
    with pytest.raises(RuntimeError, match="a bug"):
        async with used(item):
            assert await asyncio.to_thread(eventually, "taken", lambda: free(gateway) == PODS - 1)
            raise RuntimeError("a bug")
    await settled(gateway)

    async def held() -> None:
        async with used(item):
            await asyncio.sleep(600)

    task = asyncio.create_task(held())
    await asyncio.to_thread(eventually, "taken", lambda: free(gateway) == PODS - 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled(gateway)
    await used.aclose()


async def test_an_attempt_that_is_offered_nothing_of_a_sandbox_takes_none(gateway: Gateway) -> None:
    used = GatewayTools(GatewayOptions(gateway.url, TOKEN), ["open"])
    await asyncio.to_thread(eventually, "all sandboxes", lambda: free(gateway) == PODS)
    async with used(Item("a", "?", "x")) as its:
        assert [each["function"]["name"] for each in await its.schemas()] == ["open"]
        assert (await its.call("open", {"url": "http://world.test/"})).outcome is Outcome.OK
        assert free(gateway) == PODS
    await used.aclose()


async def test_an_attempt_waits_for_a_sandbox_and_is_not_the_agents_failure_if_none_comes(gateway: Gateway) -> None:
    used, item = tools(gateway), Item("a", "?", "x")
    async with used(item), used(item):
        hasty = tools(gateway, patience=0.5)
        with pytest.raises(ToolsUnavailable, match="sandboxes are"):
            async with hasty(item):
                pass
        await hasty.aclose()
        waiting = asyncio.create_task(asyncio.wait_for(_hold(used, item), 60))
        await asyncio.sleep(0)
    await waiting
    await settled(gateway)
    await used.aclose()


async def _hold(used: GatewayTools, item: Item) -> None:
    async with used(item):
        pass


async def test_outcomes_come_through_as_the_gateway_has_them(gateway: Gateway) -> None:
    used = tools(gateway)
    async with used(Item("a", "?", "x")) as its:
        names = {each["function"]["name"] for each in await its.schemas()}
        assert {"search", "open", "find", "python", "shell"} <= names
        assert (await its.call("open", {"url": "http://world.test/"})).outcome is Outcome.OK
        assert (await its.call("open", {"url": "http://world.test/nowhere"})).outcome is Outcome.TOOL_ERROR
        assert (await its.call("open", {"page": 1})).outcome is Outcome.INVALID_ARGUMENTS
        late = await its.call("python", {"code": "while True: pass", "timeoutSeconds": 0.3})
        assert (late.outcome, late.outcome.infrastructure) == (Outcome.TIMEOUT, True)
    await used.aclose()
    gone = GatewayTools(GatewayOptions(f"http://127.0.0.1:{free_port()}", patience=0.1))
    with pytest.raises(ToolsUnavailable, match="can't be reached"):
        await gone.digest()
    await gone.aclose()


async def test_what_can_not_work_is_said_before_the_model_is_asked(gateway: Gateway, own: Lab, tmp_path: Path) -> None:
    used, file = tools(gateway), tmp_path / "large.bin"
    file.write_bytes(bytes((8 << 20) + 1))
    with pytest.raises(BadPlan, match="larger than the 8 MiB"):
        await check_gateway(used, [Item("a", "?", "x", files=(file,))], gateway.url)
    assert (await check_gateway(used, [Item("a", "?", "x")], gateway.url)).startswith("sha256:")
    stranger = GatewayTools(GatewayOptions(gateway.url, "wrong"))
    with pytest.raises(ToolsUnavailable, match="check the address and the token"):
        await stranger.list()
    shared = own.gateway({"servers": [server("plain", own.backend())]})
    shared.wait_tools("add")
    plain = tools(shared)
    with pytest.raises(BadPlan, match=r"set spec\.sessions"):
        await check_gateway(plain, [Item("a", "?", "x", files=(file,))], shared.url)
    async with plain(Item("a", "?", "x")) as its:
        assert (await its.call("add", {"a": 1, "b": 2})).outcome is Outcome.OK
    for each in (used, stranger, plain):
        await each.aclose()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Lab]:
    (tmp_path / "own").mkdir()
    with lab(tmp_path / "own") as made:
        yield made
