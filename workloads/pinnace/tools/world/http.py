"""The offline world over HTTP: its pages at their paths, its search at /api/search."""

from __future__ import annotations

from aiohttp import web

from pinnace.tools.world.errors import NoSuchPage
from pinnace.tools.world.index import PAGE_SIZE, Index
from pinnace.tools.world.site import World

_MOST = 50


def application(world: World) -> web.Application:
    """The site as an aiohttp application."""
    index = Index(world)

    async def page(request: web.Request) -> web.Response:
        try:
            document = world.at(request.path)
        except NoSuchPage as error:
            return web.Response(status=404, text=str(error))
        return web.Response(body=document.body, headers={"Content-Type": document.content_type})

    async def search(request: web.Request) -> web.Response:
        try:
            number, size = (
                int(request.query.get(name, default)) for name, default in (("page", 1), ("size", PAGE_SIZE))
            )
            results = index.search(request.query["q"], page=number, size=min(size, _MOST))
        except (KeyError, ValueError):
            return web.json_response({"error": "ask with ?q=words, and page and size as numbers from 1"}, status=400)
        hits = [{"title": hit.title, "url": hit.url, "snippet": hit.snippet} for hit in results.hits]
        return web.json_response({"total": results.total, "results": hits})

    async def health(_: web.Request) -> web.Response:
        return web.json_response(
            {"status": "alive", "seed": world.seed, "documents": len(world.documents), "digest": world.digest}
        )

    app = web.Application()
    app.router.add_get("/healthz", health)
    app.router.add_get("/api/search", search)
    app.router.add_get("/{path:.*}", page)
    return app
