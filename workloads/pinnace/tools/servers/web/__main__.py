"""`python -m pinnace.tools.servers.web`: the tools `search` and `fetch_page` over stdio."""

from __future__ import annotations

import asyncio
import os
from functools import cache
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from pinnace.tools.servers.answer import answered, failed
from pinnace.tools.servers.files import Unreadable, read
from pinnace.tools.servers.web.addresses import Policy
from pinnace.tools.servers.web.errors import BadPage, WebError
from pinnace.tools.servers.web.extract import Page, page_of, passages
from pinnace.tools.servers.web.fetch import Fetched, Fetcher
from pinnace.tools.servers.web.providers import configured
from pinnace.tools.servers.web.search import Search

server = MCPServer("web", version="1")
READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=True)
WORLD_HOST = "world.test"
_PAGE = 8000  # characters


@cache
def engine() -> Search:
    """Made on the first call: its cool-downs live as long as the process."""
    return Search(configured(os.environ))


@cache
def fetcher() -> Fetcher:
    """The offline world plays its own host; nothing else that is private can be reached."""
    world = os.environ.get("PINNACE_WORLD_URL")
    return Fetcher(Policy({WORLD_HOST: world} if world else {}))


@server.tool(name="search", annotations=READ_ONLY)
async def search(
    query: Annotated[str, Field(min_length=1, max_length=500)],
    count: Annotated[int, Field(ge=1, le=20, description="results wanted")] = 10,
) -> CallToolResult:
    """Search the web. Returns titles, addresses and passages, best first."""
    try:
        answer = await engine().search(query, count)
    except WebError as error:
        return failed(error.outcome, str(error))
    lines = [f"{i}. {each.title}\n   {each.url}\n   {each.snippet}" for i, each in enumerate(answer.results, 1)]
    results = [{"title": each.title, "url": each.url, "snippet": each.snippet} for each in answer.results]
    structured = {"provider": answer.provider, "results": results, "failed": dict(answer.failed)}
    return answered("\n".join(lines) or f"Nothing was found for: {query}", structured)


@server.tool(name="fetch_page", annotations=READ_ONLY)
async def fetch_page(
    url: Annotated[str, Field(max_length=2000)],
    goal: Annotated[
        str, Field(max_length=1000, description="what you want to know; only passages on it are returned")
    ] = "",
    page: Annotated[int, Field(ge=1, description="page of the text, without a goal")] = 1,
) -> CallToolResult:
    """Read a web page or PDF as text. With a goal, returns the passages that bear on it and where they stand."""
    try:
        fetched = await fetcher().fetch(url)
        read_page = await asyncio.to_thread(_page, fetched)
    except WebError as error:
        return failed(error.outcome, str(error))
    about = {
        "url": fetched.url,
        "title": read_page.title,
        "contentType": fetched.content_type,
        "characters": len(read_page.text),
    }
    if goal:
        found = passages(read_page.text, goal, budget=_PAGE)
        spans = [{"start": each.start, "end": each.end} for each in found]
        text = "\n\n[…]\n\n".join(each.text.strip() for each in found)
        return answered(
            text or "No passage of this page bears on the goal; read it without one.", about | {"passages": spans}
        )
    pages = max(1, -(-len(read_page.text) // _PAGE))
    if page > pages:
        return failed(BadPage.outcome, f"{url} has {pages} pages, not a page {page}")
    text = read_page.text[(page - 1) * _PAGE : page * _PAGE]
    note = f"\n\n(page {page} of {pages})" if pages > 1 else ""
    return answered(text + note, about | {"page": page, "pages": pages})


def _page(fetched: Fetched) -> Page:
    if fetched.content_type == "text/html":
        return page_of(fetched.body.decode(fetched.charset or "utf-8", errors="replace"))
    try:
        document = read(fetched.url.partition("?")[0], fetched.body)
    except Unreadable as error:
        raise BadPage(str(error)) from None
    return Page(str(document.about.get("title") or ""), "\n\n".join(document.parts))


if __name__ == "__main__":
    server.run("stdio")
