"""A ToolSandbox's tools for one trajectory, at the address and with the token that the operator gave to the pod."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pinnace.agent import Tools
from pinnace.outcome import InvalidSpec
from pinnace.rl.config import Task
from pinnace.tools.client import GatewayRefused, Offered, ToolClient, near

URL, TOKEN, OFFERED = "PINNACE_TOOLS_URL", "PINNACE_TOOLS_TOKEN", "PINNACE_TOOLS_OFFERED"
_PATIENCE = 60.0  # seconds to wait for a free sandbox; after that the attempt says nothing about the agent


@asynccontextmanager
async def tools(_: Task) -> AsyncIterator[Tools]:
    """What is offered, in a sandbox of the trajectory's own if one of the tools lives there.

    Raises:
        GatewayRefused: the gateway is away, or no sandbox became free.
        InvalidSpec: what is to be offered is not there.
    """
    async with _client() as client:
        listing = await client.listing()
        offered = _offered(listing["tools"])
        if not offered.keys().isdisjoint(listing["inSessions"]):
            async with client.session(patience=_PATIENCE) as sandbox:
                yield Offered(sandbox, [*offered.values()])
        else:
            yield Offered(client, [*offered.values()])


async def check() -> None:
    """Whether the token is good and the tools are there. Raises `InvalidSpec`; `GatewayRefused` when nobody answers."""
    async with _client() as client:
        try:
            found = await client.tools()
        except GatewayRefused as refused:
            if refused.status in {401, 403}:
                raise InvalidSpec(f"toolSandbox: {refused}: check toolSandbox.tenant") from refused
            raise
    if not found:
        raise InvalidSpec("toolSandbox: it offers no tools: add servers to it, or remove toolSandbox")
    _offered(found)


def _offered(listed: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """By name. Raises `InvalidSpec` for one that is not there."""
    there = {each["function"]["name"]: each for each in listed}
    wanted = [each for each in os.environ.get(OFFERED, "").split(",") if each]
    for name in wanted:
        if name not in there:
            raise InvalidSpec(f"toolSandbox.tools: the gateway has no tool {name!r}; there is {near(name, there)}")
    return {name: there[name] for name in wanted} if wanted else there


def _client() -> ToolClient:
    return ToolClient(os.environ[URL], token=os.environ.get(TOKEN, ""))
