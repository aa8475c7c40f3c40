"""The HTTP server that an agent takes for OpenAI, and that keeps every token of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from pinnace.rl.types import Reward, Termination, dump_trajectory

from . import chat_completions, responses
from .capture import Capture
from .refusal import Refused, check_fields
from .session import Session

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RETRY_SECONDS = 5
_ALTERNATIVES = {
    "completions": "use /v1/chat/completions",
    "messages": "use /v1/chat/completions or /v1/responses",
    "embeddings": "run an embedding model of your own",
}


class Proxy:
    """Routes for agents (by their key) and for the sampler (by `control_key`)."""

    def __init__(self, capture: Capture, *, model: str, control_key: str) -> None:
        self._capture = capture
        self._model = model
        self._control_key = control_key

    def app(self) -> web.Application:
        """The application; serve it with aiohttp's runner."""
        app = web.Application(middlewares=[self._refusals], client_max_size=64 * 2**20)
        for prefix in ("", "/session/{key}"):
            app.router.add_post(f"{prefix}/v1/chat/completions", self.chat_completions)
            app.router.add_post(f"{prefix}/v1/responses", self.responses)
            app.router.add_get(f"{prefix}/v1/models", self.models)
            app.router.add_route("*", prefix + "/v1/{rest:.*}", self.not_offered)
            app.router.add_post(f"{prefix}/reward", self.reward)
        app.router.add_post("/rl/sessions", self.open_session)
        app.router.add_post("/rl/sessions/{key}/end", self.end_session)
        app.router.add_get("/healthz", self.healthz)
        return app

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        session, asked = await self._asked(request, chat_completions.UNDERSTOOD)
        conversation = chat_completions.conversation_of(asked)
        limit = _limit(asked, "max_completion_tokens", "max_tokens")
        answer = await self._capture.answer(session, conversation, max_tokens=limit, wanted=_connected(request))
        if not asked.get("stream"):
            return web.json_response(chat_completions.body(answer, self._model))
        usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        chunks = chat_completions.chunks(answer, self._model, usage=usage)
        return await _stream(request, [*(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), "data: [DONE]\n\n"])

    async def responses(self, request: web.Request) -> web.StreamResponse:
        session, asked = await self._asked(request, responses.UNDERSTOOD)
        previous = asked.get("previous_response_id")
        if previous and previous not in session.responses:
            raise Refused(400, f"no response {previous!r} in this session", code="previous_response_not_found")
        conversation = responses.request_to_conversation(asked, session.responses.get(previous or ""))
        limit = _limit(asked, "max_output_tokens")
        answer = await self._capture.answer(session, conversation, max_tokens=limit, wanted=_connected(request))
        whole = responses.body(answer, self._model, asked)
        session.responses[whole["id"]] = session.exchanges[-1].conversation
        if not asked.get("stream"):
            return web.json_response(whole)
        events = responses.events(whole)
        return await _stream(request, [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events])

    async def models(self, request: web.Request) -> web.StreamResponse:
        self._session(request)
        model = {"id": self._model, "object": "model", "created": 0, "owned_by": "pinnace"}
        return web.json_response({"object": "list", "data": [model]})

    async def not_offered(self, request: web.Request) -> web.StreamResponse:
        route = request.match_info["rest"]
        self._capture.counts[f"unsupported_route_{route.partition('/')[0]}"] += 1
        alternative = _ALTERNATIVES.get(route.partition("/")[0], "use /v1/chat/completions or /v1/responses")
        raise Refused(501, f"{request.method} /v1/{route} is not offered here: {alternative}", code="unsupported_route")

    async def reward(self, request: web.Request) -> web.StreamResponse:
        """`{"value": 1.0, "right": true}`, with `"turn": i` for a step reward, or `{"unknown": "judge"}`."""
        session, given = self._session(request), await _json(request)
        try:
            if "unknown" in given:
                session.reward = Reward.unknown(given["unknown"], str(given.get("detail", "")))
            elif "turn" in given:
                session.history.credit(int(given["turn"]), float(given["value"]))
            else:
                right = bool(given.get("right", float(given["value"]) > 0))
                session.reward = (Reward.right if right else Reward.wrong)(float(given["value"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(400, f"no reward: {error!r}; send value, or unknown", code="invalid_reward") from error
        return web.json_response({})

    async def open_session(self, request: web.Request) -> web.StreamResponse:
        self._control(request)
        given = await _json(request)
        try:
            session = self._capture.sessions.open(
                id=given["id"], task_id=given["task_id"], group_id=given["group_id"], mode=given.get("mode", "train")
            )
        except KeyError as error:
            raise Refused(
                400, f"a session needs id, task_id and group_id, and a known mode: {error}", code="invalid_session"
            ) from error
        return web.json_response({"key": session.key, "path": f"/session/{session.key}/v1"})

    async def end_session(self, request: web.Request) -> web.StreamResponse:
        """Ends a session and returns its trajectory; the body may name the termination."""
        self._control(request)
        given = await _json(request)
        try:
            termination = Termination(given.get("termination", Termination.ANSWERED))
        except ValueError as error:
            raise Refused(400, f"{error}: one of {', '.join(Termination)}", code="invalid_termination") from error
        trajectory = self._capture.sessions.close(request.match_info["key"], termination)
        return web.Response(body=dump_trajectory(trajectory), content_type="application/json")

    async def healthz(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"in_flight": self._capture.in_flight})

    async def _asked(self, request: web.Request, understood: set[str]) -> tuple[Session, dict[str, Any]]:
        session, asked = self._session(request), await _json(request)
        check_fields(asked, understood=understood, unsupported=self._capture.counts)
        return session, asked

    def _session(self, request: web.Request) -> Session:
        """By path, else by header, else by API key."""
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ") or None
        key = request.match_info.get("key") or request.headers.get("X-Pinnace-Session") or bearer
        return self._capture.sessions.find(key)

    def _control(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {self._control_key}":
            raise Refused(401, "opening and ending sessions needs the run's control key", code="invalid_api_key")

    @web.middleware
    async def _refusals(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            self._capture.counts[f"refused_{refused.status}"] += 1
            passing = refused.status in {429, 502, 503}
            # OpenAI's clients repeat every 5xx unless told not to, and a 501 stays a 501.
            headers = {"Retry-After": str(RETRY_SECONDS)} if passing else {"x-should-retry": "false"}
            return web.json_response(refused.body(), status=refused.status, headers=headers)


def _limit(asked: dict[str, Any], *names: str) -> int | None:
    for name in names:
        if asked.get(name) is not None:
            if not isinstance(asked[name], int) or asked[name] < 1:
                raise Refused(400, f"`{name}` must be a positive integer", code="invalid_value", parameter=name)
            return int(asked[name])
    return None


def _connected(request: web.Request) -> Callable[[], bool]:
    return lambda: request.transport is not None and not request.transport.is_closing()


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        given = await request.json() if request.can_read_body else {}
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(given, dict):
        raise Refused(400, "the body must be a JSON object", code="invalid_json")
    return given


async def _stream(request: web.Request, frames: Iterable[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    for frame in frames:
        await response.write(frame.encode())
    await response.write_eof()
    return response
