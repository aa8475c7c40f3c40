"""A run's tools by a real gateway: those that were chosen, in a sandbox of each trajectory's own where need be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pinnace.agent import Tools
from pinnace.outcome import InvalidSpec
from pinnace.rl.pod import gateway as pod
from pinnace.tools.client import ToolClient

from e2e.gateway import sandboxes
from e2e.gateway.lab import Gateway, lab
from e2e.gateway.sandboxes import Sandboxes

TASK: dict[str, Any] = {"id": "t", "question": "?"}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Sandboxes]]:
    """A gateway before a tool server and two sandboxes."""
    with lab(tmp_path_factory.mktemp("lab")) as made:
        pool = sandboxes.start(made, 2)
        backend = made.backend()
        servers = [{"name": "backend", "versions": [{"name": "v1", "endpoints": [backend.url]}]}]
        gateway = made.gateway({**sandboxes.configuration(pool, max=2), "servers": servers})
        gateway.wait_tools("echo", "python")
        yield sandboxes.ready(gateway, 2), pool


@pytest.fixture
def offering(warm: tuple[Gateway, Sandboxes], monkeypatch: pytest.MonkeyPatch) -> Any:
    """As the operator tells a sampler's pod."""

    def offer(*names: str) -> Sandboxes:
        monkeypatch.setenv(pod.URL, warm[0].url)
        monkeypatch.setenv(pod.TOKEN, warm[0].token)
        monkeypatch.setenv(pod.OFFERED, ",".join(names))
        return warm[1]

    return offer


async def names(tools: Tools) -> Sequence[str]:
    return [each["function"]["name"] for each in await tools.schemas()]


async def test_an_agent_is_offered_what_was_chosen_in_that_order(offering: Any) -> None:
    pool = offering("echo", "add")
    await pod.check()
    async with pod.tools(TASK) as tools:
        assert await names(tools) == ["echo", "add"]
        assert (await tools.call("echo", {"text": "x"})).text == "x"
        assert set(pool.states()) == {"free"}, "shared tools need no sandbox"


async def test_trajectories_have_sandboxes_of_their_own_and_give_them_back(offering: Any) -> None:
    pool = offering("python")
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(pod.tools(TASK)) for _ in range(2)]
        assert await names(one) == ["python"]
        await asyncio.gather(one.call("python", {"code": "x = 1"}), other.call("python", {"code": "x = 2"}))
        assert [(await each.call("python", {"code": "print(x)"})).text.strip() for each in (one, other)] == ["1", "2"]
        assert "free" not in pool.states()
    pool.free()  # waits for what the gateway has begun


async def test_a_call_after_the_lease_has_ended_is_not_held_against_the_agent(
    warm: tuple[Gateway, Sandboxes], offering: Any
) -> None:
    offering("python")
    async with pod.tools(TASK) as tools, ToolClient(warm[0].url, token=warm[0].token) as tenant:
        for lease in await tenant.leases():
            await tenant.release(lease.id)
        assert (await tools.call("python", {"code": "print(1)"})).outcome == "unavailable"


async def test_a_tool_that_is_not_there_is_told_before_the_first_attempt(offering: Any) -> None:
    offering("ecko")
    with pytest.raises(InvalidSpec, match="no tool 'ecko'; there is echo"):
        await pod.check()
