"""The official Python SDK's client, with a gateway's token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from e2e.gateway.lab import Gateway


@asynccontextmanager
async def connected(gateway: Gateway, era: str, **options: Any) -> AsyncIterator[Client]:
    """A client with this gateway's token."""
    async with create_mcp_http_client(headers=gateway.headers) as http:
        transport = streamable_http_client(gateway.mcp, http_client=http)
        async with Client(transport, mode=era, **options) as client:
            yield client
