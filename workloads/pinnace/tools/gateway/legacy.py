"""The MCP front of revisions before 2026-07-28: sessions, notifications, requests to the client."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from typing import Any

from aiohttp import web

from pinnace.tools.gateway import http, wire
from pinnace.tools.gateway.auth import Caller
from pinnace.tools.gateway.call import Calls
from pinnace.tools.gateway.entry import Entry
from pinnace.tools.gateway.http import Refused, Sink
from pinnace.tools.gateway.mcpsession import McpSession, McpSessions
from pinnace.tools.gateway.peers import Peers
from pinnace.tools.gateway.reply import Reply, refused
from pinnace.tools.gateway.state import State
from pinnace.tools.outcome import Outcome

HEADER = "Mcp-Session-Id"
_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_ROUNDS = 8  # of questions that a tool may ask the client in one call
_LIST_CHANGED = wire.dumps({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
_questions = itertools.count(1)
_ours = secrets.token_hex(4)  # another gateway may ask the same client


class Legacy:
    """Translates to and from 2026-07-28: behind it, all calls are of that revision."""

    def __init__(self, state: State, calls: Calls, entry: Entry, sessions: McpSessions, peers: Peers) -> None:
        self._state = state
        self._calls = calls
        self._entry = entry
        self.sessions = sessions
        self._peers = peers

    async def post(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        """One JSON-RPC message: a request, a notification, or an answer to a request of ours."""
        raw = await http.body(request, self._state.config.limits.request_bytes)
        try:
            message = wire.loads(raw)
        except (ValueError, RecursionError):
            return _error(None, wire.PARSE_ERROR, "Parse error: the body is not JSON", 400)
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            return _error(None, wire.INVALID_REQUEST, "the body must be one JSON-RPC 2.0 message", 400)
        method, rpc_id = message.get("method"), message.get("id")
        params = message.get("params") or {}
        if not isinstance(params, dict):
            return _error(rpc_id, wire.INVALID_PARAMS, "params must be an object", 400)
        if method == "initialize":
            return self._initialize(rpc_id, params, caller)
        session = self._session(request, caller)
        if method is None or rpc_id is None:
            if not self._note(session, message, params):
                await self._peers.tell(request, raw)
            return web.Response(status=202)
        return await self._dispatch(request, caller, session, rpc_id, str(method), params)

    def _initialize(self, rpc_id: Any, params: dict[str, Any], caller: Caller) -> web.Response:
        asked = params.get("protocolVersion")
        version = asked if asked in wire.LEGACY_VERSIONS else wire.LEGACY_VERSIONS[-1]
        session = self.sessions.begin(
            str(version), caller.tenant, dict(params.get("capabilities") or {}), dict(params.get("clientInfo") or {})
        )
        result = {
            "protocolVersion": version,
            "capabilities": {"tools": {"listChanged": True}, "logging": {}},
            "serverInfo": wire.GATEWAY,
        }
        return http.json_response(wire.result(rpc_id, result), headers={HEADER: session.id})

    def _session(self, request: web.BaseRequest, caller: Caller) -> McpSession:
        given = request.headers.get(HEADER)
        if given is None:
            raise Refused(400, f"header {HEADER} is missing: send `initialize` first, or speak {wire.MODERN}")
        session = self.sessions.find(given, caller.tenant)
        if session is None:
            raise Refused(404, "there is no such MCP session (any more): send `initialize` again")
        return session

    def _note(self, session: McpSession, message: dict[str, Any], params: dict[str, Any]) -> bool:
        """A notification, or the client's answer to a question of a tool. False: its call must be another gateway's."""
        if message.get("method") == "notifications/cancelled":
            running = session.in_flight.get(params.get("requestId"))
            if running is None:
                return False
            running.take_back()
        elif message.get("method") is None:
            waiting = session.waiting.get(message.get("id"))
            if waiting is None:
                return False
            if not waiting.done():
                waiting.set_result(message)
        return True

    async def _dispatch(
        self,
        request: web.BaseRequest,
        caller: Caller,
        session: McpSession,
        rpc_id: Any,
        method: str,
        params: dict[str, Any],
    ) -> web.StreamResponse:
        if method == "tools/call":
            return await self._call(request, caller, session, rpc_id, params)
        if method == "tools/list":
            return http.json_response(wire.result(rpc_id, self._state.catalog.list_result(legacy=True)))
        if method == "ping":
            return http.json_response(wire.result(rpc_id, {}))
        if method == "logging/setLevel":
            if params.get("level") not in _LEVELS:
                return _error(rpc_id, wire.INVALID_PARAMS, f"level is one of {', '.join(_LEVELS)}")
            session.log_level = params["level"]
            return http.json_response(wire.result(rpc_id, {}))
        return _error(rpc_id, wire.METHOD_NOT_FOUND, f"the gateway does not serve {method}")

    async def _call(
        self, request: web.BaseRequest, caller: Caller, session: McpSession, rpc_id: Any, params: dict[str, Any]
    ) -> web.StreamResponse:
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, dict | None):
            return _error(rpc_id, wire.INVALID_PARAMS, "params.name must be a string and params.arguments an object")
        sink = Sink(request)
        try:
            with session.running(rpc_id) as running:
                reply = await self._rounds(request, caller, session, sink, rpc_id, params)
            if running.taken_back:  # the client does not expect a response, but the stream must end
                return await sink.end(wire.error(rpc_id, 0, "Request cancelled"))
            return await _finish(sink, reply, rpc_id)
        finally:
            sink.close()

    async def _rounds(
        self,
        request: web.BaseRequest,
        caller: Caller,
        session: McpSession,
        sink: Sink,
        rpc_id: Any,
        params: dict[str, Any],
    ) -> Reply:
        """The call, and again with the client's answers for as long as the tool asks for some."""
        call = self._entry.call(request, caller, params["name"], params.get("arguments") or {})
        meta = wire.modern_meta(
            capabilities=session.capabilities, info=session.info or wire.GATEWAY, log_level=session.log_level
        )
        call.params = {"name": call.tool, "arguments": call.arguments, "_meta": {**(params.get("_meta") or {}), **meta}}
        call.rpc_id, call.emit = rpc_id, sink.emit
        call.run = await self._entry.run(request, caller)
        for _ in range(_ROUNDS):
            reply = await self._calls.call(call)
            value = reply.value or {}
            if value.get("resultType") != "input_required":
                return reply
            if not sink.accepts_stream:
                break
            answers = await self._ask(session, sink, value.get("inputRequests") or {})
            call.params = {**call.params, "inputResponses": answers}
            if "requestState" in value:
                call.params["requestState"] = value["requestState"]
        return refused(Outcome.TOOL_ERROR, "the tool asked for more input than this client can give")

    async def _ask(self, session: McpSession, sink: Sink, questions: dict[str, Any]) -> dict[str, Any]:
        """Put the tool's questions (elicitation, sampling, roots) to the client, on the call's stream."""
        pending: dict[str, tuple[str, asyncio.Future[dict[str, Any]]]] = {}
        loop = asyncio.get_running_loop()
        try:
            for key, question in questions.items():
                number = f"pinnace-{_ours}-{next(_questions)}"
                pending[key] = (number, loop.create_future())
                session.waiting[number] = pending[key][1]
                asked = {
                    "jsonrpc": "2.0",
                    "id": number,
                    "method": question.get("method"),
                    "params": question.get("params") or {},
                }
                await sink.emit(wire.dumps(asked))
            answers = {key: await future for key, (_, future) in pending.items()}
        finally:
            for number, _ in pending.values():
                session.waiting.pop(number, None)
        return {key: answer.get("result") or {"action": "cancel"} for key, answer in answers.items()}

    async def get(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        """The session's own stream: tells when the list of tools changes."""
        session = self._session(request, caller)
        sink = Sink(request, {HEADER: session.id})
        if "text/event-stream" not in request.headers.get("Accept", ""):
            raise Refused(406, "GET /mcp answers with text/event-stream: accept it")
        stream = await sink.open()
        session.streams += 1
        changed = self._state.changed
        try:
            while not self._entry.draining:
                try:
                    async with asyncio.timeout(1.0):
                        await changed.wait()
                except TimeoutError:
                    continue
                changed = self._state.changed
                await sink.emit(_LIST_CHANGED)
            await stream.write_eof()
        finally:
            session.streams -= 1
            sink.close()
        return stream

    async def delete(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        """The client ends its session."""
        self.sessions.end(self._session(request, caller))
        await self._peers.tell(request)
        return web.Response(status=200)


async def _finish(sink: Sink, reply: Reply, rpc_id: Any) -> web.StreamResponse:
    if reply.error is not None:
        return await sink.end(wire.dumps({"jsonrpc": "2.0", "id": rpc_id, "error": reply.error}))
    return await sink.end(wire.result(rpc_id, wire.to_legacy(reply.mcp())))


def _error(rpc_id: Any, code: int, message: str, status: int = 200) -> web.Response:
    return http.json_response(wire.error(rpc_id, code, message), status)
