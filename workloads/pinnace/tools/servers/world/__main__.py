"""The offline world's tools `search`, `open` and `find` over stdio: `python -m pinnace.tools.servers.world`."""

from __future__ import annotations

import os
from functools import cache
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from pinnace.tools.outcome import Outcome
from pinnace.tools.servers.answer import answered, failed
from pinnace.tools.world import Index, NoSuchPage, Settings, World, find, open_page

server = MCPServer("world", version="1")
READ_ONLY = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
Page = Annotated[int, Field(ge=1, description="page, from 1")]
Address = Annotated[str, Field(max_length=500, description="address from a search result or a link, e.g. /places/…")]


@cache
def world() -> World:
    """The world that the environment asks for."""
    return Settings.from_env(os.environ).build()


@cache
def index() -> Index:
    """Its search index."""
    return Index(world())


@server.tool(name="search", annotations=READ_ONLY)
async def search(
    query: Annotated[str, Field(max_length=500, description="words that the page should contain")], page: Page = 1
) -> CallToolResult:
    """Search the web. Returns titles, addresses and passages, ten a page, best first."""
    results = index().search(query, page=page)
    if not results.hits:
        return answered(
            f"No page has these words: {query}" if page == 1 else "No more results.",
            {"total": results.total, "results": []},
        )
    lines = [f"{i}. {hit.title}\n   {hit.url}\n   {hit.snippet}" for i, hit in enumerate(results.hits, 1)]
    more = f"\n\n{results.total} results; page {page + 1} has more." if results.total > page * 10 else ""
    found = [{"title": hit.title, "url": hit.url, "snippet": hit.snippet} for hit in results.hits]
    return answered("\n".join(lines) + more, {"total": results.total, "results": found})


@server.tool(name="open", annotations=READ_ONLY)
async def open_address(url: Address, page: Page = 1) -> CallToolResult:
    """Read a page or a PDF. Long ones come in pages; links are given as [text](address)."""
    try:
        opened = open_page(world().at(url), page)
    except NoSuchPage as error:
        return failed(Outcome.TOOL_ERROR, str(error))
    note = f"\n\n(page {page} of {opened.pages})" if opened.pages > 1 else ""
    return answered(opened.text + note, {"url": opened.url, "title": opened.title, "page": page, "pages": opened.pages})


@server.tool(name="find", annotations=READ_ONLY)
async def find_words(
    url: Address,
    words: Annotated[str, Field(min_length=1, max_length=200, description="words as they stand in the text")],
    start: Annotated[int, Field(ge=0, description="number of the first match to return")] = 0,
) -> CallToolResult:
    """Find words in a page or a PDF. Returns the lines that have them and the page each is on."""
    try:
        found = find(world().at(url), words, start=start)
    except (NoSuchPage, ValueError) as error:
        return failed(Outcome.TOOL_ERROR, str(error))
    lines = [f"page {match.page}: {match.line}" for match in found.matches]
    return answered(
        "\n".join(lines) or f"{url} does not have these words: {words}", {"url": found.url, "total": found.total}
    )


if __name__ == "__main__":
    index()  # the handshake says ready when it is
    server.run("stdio")
