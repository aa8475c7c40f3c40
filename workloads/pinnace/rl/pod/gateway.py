"""A ToolSandbox's tools for one trajectory, at the address and with the token that the operator gave to the pod."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pinnace.agent import Tools
from pinnace.outcome import InvalidSpec
from pinnace.rl.config import Task
from pinnace.tools.client import GatewayRefused, ToolClient
from pinnace.tools.outcome import ToolResult

URL, TOKEN = "PINNACE_TOOLS_URL", "PINNACE_TOOLS_TOKEN"


class _Tools:
    def __init__(self, client: ToolClient) -> None:
        self._client = client

    async def schemas(self) -> Sequence[Mapping[str, Any]]:
        return await self._client.tools()

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        return await self._client.call(name, arguments)


@asynccontextmanager
async def tools(_: Task) -> AsyncIterator[Tools]:
    async with _client() as client:
        yield _Tools(client)


async def check() -> None:
    """Whether the token is good and there is a tool. Raises `InvalidSpec`; `GatewayRefused` when nobody answers."""
    async with _client() as client:
        try:
            found = await client.tools()
        except GatewayRefused as refused:
            if refused.status in {401, 403}:
                raise InvalidSpec(f"toolSandbox: {refused}: check toolSandbox.tenant") from refused
            raise
    if not found:
        raise InvalidSpec("toolSandbox: it offers no tools: add servers to it, or remove toolSandbox")


def _client() -> ToolClient:
    return ToolClient(os.environ[URL], token=os.environ.get(TOKEN, ""))
