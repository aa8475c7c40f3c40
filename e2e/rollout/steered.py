"""Before a real vLLM: a script chooses the words, the server writes them.

Every request goes on as it came, with one field more: a grammar that permits the chosen text and no other. So the chat
template, the count of tokens, the prefix cache, the sampling, and the parser of tool calls are the server's, and so is
the answer, which goes back unchanged. Only the decision is the script's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from e2e.faults.model import Answer, Request


def written(answer: Answer) -> str:
    """An answer as Hermes writes it."""
    calls = [{"name": name, "arguments": arguments} for name, arguments in answer.calls]
    tagged = [f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in calls]
    return "\n".join([*([answer.content] if answer.content else []), *tagged])


@asynccontextmanager
async def steered(server: str, script: Callable[[Request], Answer]) -> AsyncIterator[str]:
    """The address of an endpoint on loopback, in this event loop, before the vLLM at `server`."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as http:

        async def passed_on(answer: aiohttp.ClientResponse) -> web.Response:
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type, charset=answer.charset
            )

        async def models(_: web.Request) -> web.Response:
            async with http.get(f"{server}/v1/models") as answer:
                return await passed_on(answer)

        async def complete(request: web.Request) -> web.Response:
            body = await request.json()
            body["structured_outputs"] = {"choice": [written(script(body))]}
            async with http.post(f"{server}/v1/chat/completions", json=body) as answer:
                return await passed_on(answer)

        app = web.Application(client_max_size=16 << 20)
        app.router.add_get("/v1/models", models)
        app.router.add_post("/v1/chat/completions", complete)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()
