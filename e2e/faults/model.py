"""An OpenAI-compatible server that answers as a script says: a model that can be relied on to misbehave.

It speaks real HTTP, counts prompts with a real tokenizer, and refuses those that exceed its context as vLLM does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pinnace.agent import ModelCounter

Request = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One completion. A call's arguments may be a dict, or text that is no JSON."""

    content: str = ""
    reasoning: str | None = None
    calls: Sequence[tuple[str, dict[str, Any] | str]] = ()
    finish: str | None = None
    refusal: str | None = None


@dataclass(frozen=True)
class Trouble:
    """An answer that is none: an HTTP status with a message, or a connection that breaks off."""

    status: int = 500
    message: str = "provoked"
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


Script = Callable[[Request], Answer | Trouble | Awaitable[Answer | Trouble]]


@dataclass
class ScriptedModel:
    """The running server. `requests` are all that it got, in order."""

    script: Script
    counter: ModelCounter | None = None
    context: int = 1 << 20
    name: str = "scripted"
    tools: bool = True
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _ids: itertools.count[int] = field(default_factory=itertools.count)

    async def models(self, _: web.Request) -> web.Response:
        listed = {"id": self.name, "object": "model", "created": 0, "owned_by": "test", "max_model_len": self.context}
        return web.json_response({"object": "list", "data": [listed]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self._answer(request, body)
        finally:
            self._now -= 1

    async def _answer(self, request: web.Request, body: Request) -> web.StreamResponse:
        if body.get("tools") and not self.tools:
            return _error(400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
        prompt = 0
        if self.counter is not None:
            prompt = await asyncio.to_thread(self.counter.prompt, body["messages"], body.get("tools") or ())
            self.prompts.append(prompt)
            room = self.context - (body.get("max_tokens") or 0)
            if prompt > room:
                return _error(400, f"This model's maximum context length is {self.context} tokens, not {prompt}.")
        answer = self.script(body)
        if not isinstance(answer, Answer | Trouble):
            answer = await answer
        if isinstance(answer, Trouble):
            if answer.drop and request.transport is not None:
                request.transport.abort()
            return _error(answer.status, answer.message, answer.headers)
        return web.json_response(self._completion(answer, prompt))

    def _completion(self, answer: Answer, prompt: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.content, "refusal": answer.refusal}
        if answer.reasoning is not None:
            message["reasoning_content"] = answer.reasoning
        if answer.calls:
            message["tool_calls"] = [
                {
                    "id": f"call_{next(self._ids)}",
                    "type": "function",
                    "function": {"name": name, "arguments": body if isinstance(body, str) else json.dumps(body)},
                }
                for name, body in answer.calls
            ]
        written = max(1, len(answer.content) // 4)
        finish = answer.finish or ("tool_calls" if answer.calls else "stop")
        return {
            "id": f"chatcmpl-{next(self._ids)}",
            "object": "chat.completion",
            "created": 0,
            "model": self.name,
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
        }


@asynccontextmanager
async def scripted_model(script: Script, **settings: Any) -> AsyncIterator[ScriptedModel]:
    """A server on loopback, in this event loop."""
    model = ScriptedModel(script, **settings)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_get("/v1/models", model.models)
    app.router.add_post("/v1/chat/completions", model.complete)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    model.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield model
    finally:
        await runner.cleanup()


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"error": {"message": message, "type": "provoked", "code": status}}
    return web.json_response(body, status=status, headers=headers)
