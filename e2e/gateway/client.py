"""The official Python SDK's client, with a gateway's token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from e2e.gateway.lab import Gateway


@asynccontextmanager
async def official(url: str, token: str, era: str = "auto", **options: Any) -> AsyncIterator[Client]:
    """A client of the gateway at `url` (without a path), unmodified but for the token."""
    async with (
        create_mcp_http_client(headers={"Authorization": f"Bearer {token}"}) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=era, **options) as client,
    ):
        yield client


def connected(gateway: Gateway, era: str, **options: Any) -> AbstractAsyncContextManager[Client]:
    """A client with this gateway's token."""
    return official(gateway.url, gateway.token, era, **options)
