"""The path of a call, from top to bottom: refuse, remember, route, try again, try another tool."""

from __future__ import annotations

import asyncio
import time
from random import Random

from mcp.shared.inbound import mcp_param_headers

from pinnace.tools.gateway import backup, results, retry, wire
from pinnace.tools.gateway.agent import KEY_HEADER, SESSION_HEADER
from pinnace.tools.gateway.cache import ResultCache, canonical
from pinnace.tools.gateway.catalog import Tool
from pinnace.tools.gateway.config import Backup
from pinnace.tools.gateway.metrics import ToolMetrics
from pinnace.tools.gateway.ratelimit import RateLimiter
from pinnace.tools.gateway.reply import Call, Reply, is_complete, of_error, of_failure, of_result, refused
from pinnace.tools.gateway.retry import Failure, Reach
from pinnace.tools.gateway.route import Replica
from pinnace.tools.gateway.state import State
from pinnace.tools.gateway.upstream import Failed, Message
from pinnace.tools.outcome import CallError, Outcome, ToolResult

_OUTCOMES = frozenset(Outcome)
_GONE = "the session's sandbox is gone or hung: end the lease and take a new one"
_COLD_WITH_BACKUP = 1.0  # seconds to wait for a first replica when a backup could answer instead


class Calls:
    """Carries out calls against the state in force."""

    def __init__(self, state: State, rng: Random) -> None:
        self._state = state
        self._rng = rng
        self._cache = ResultCache()
        self._limiter = RateLimiter()
        self.in_flight = 0
        state.metrics.in_flight.set_function(lambda: self.in_flight)

    async def call(self, call: Call) -> Reply:
        """Never raises but for the caller's cancellation."""
        state = self._state
        loop = asyncio.get_running_loop()
        began = loop.time()
        tool = state.catalog.find(call.tool)
        self.in_flight += 1
        trace, span = state.tracing.begin(call.trace, call.tool if tool else "unknown")
        call.trace = trace
        outcome = "cancelled"
        try:
            if tool is None and state.may_appear():
                tool = await self._appears(call)
            if tool is None:
                reply = self._unknown(call)
            else:
                reply = self._refuse(call, tool, began) or await self._answer(call, tool, state.metrics.tool(tool.name))
            outcome = str(reply.outcome)
        finally:
            self.in_flight -= 1
            took = loop.time() - began
            lease = call.caller.lease
            state.tracing.end(span, outcome=outcome, attempts=call.attempts)
            state.audit.call(
                request=call.request_id,
                tenant=call.caller.tenant,
                lease=lease.id if lease else "",
                tool=call.tool[:128],
                outcome=outcome,
                ms=took * 1000,
                attempts=call.attempts,
                trace=trace,
            )
        if tool is not None:
            state.metrics.tool(tool.name).ended(reply.outcome, took)
            state.health.ended(tool.name, reply)
        meta = {"requestId": call.request_id, "attempts": call.attempts, **reply.meta, "ms": round(took * 1000, 2)}
        return Reply(reply.outcome, reply.value, reply.error, reply.message, reply.problem, meta)

    async def _appears(self, call: Call) -> Tool | None:
        """Wait for a tool that may be listed in a moment: this gateway, or its server, has just started."""
        end = min(call.deadline, asyncio.get_running_loop().time() + self._state.config.limits.max_queue_seconds)
        while self._state.may_appear():
            if asyncio.get_running_loop().time() >= end or self._state.catalog.find(call.tool):
                break
            await asyncio.sleep(0.02)
        return self._state.catalog.find(call.tool)

    def _unknown(self, call: Call) -> Reply:
        if self._state.may_appear():
            told = "the gateway has just started and does not know all tools yet"
            return refused(Outcome.UNAVAILABLE, told, retry_after=1.0)
        near = self._state.catalog.nearest(call.tool)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        self._state.metrics.refused.labels("unknown_tool").inc()
        return refused(Outcome.INVALID_ARGUMENTS, f"there is no tool {call.tool!r}{hint}", suggestions=near)

    def _refuse(self, call: Call, tool: Tool, now: float) -> Reply | None:
        """What stops a call before it goes anywhere."""
        limits = self._state.config.limits
        if self.in_flight > limits.max_in_flight:
            told = f"the gateway has its most calls in flight ({limits.max_in_flight})"
            return refused(Outcome.OVERLOADED, told, retry_after=1.0)
        if tool.session and call.caller.lease is None:
            told = f"{tool.name!r} runs in a session's sandbox: POST /sessions, then call with the token of the lease"
            return refused(Outcome.DENIED, told)
        if problem := tool.schema.problem(call.arguments):
            path, message = problem
            return refused(Outcome.INVALID_ARGUMENTS, f"{path}: {message}", path=path)
        if tool.rule.rate_limit:
            wait = self._limiter.take((tool.name, call.caller.tenant), tool.rule.rate_limit, now)
            if wait:
                told = f"{tool.name!r} may be called {tool.rule.rate_limit.per_second:g} times a second"
                return refused(Outcome.OVERLOADED, told, retry_after=wait)
        return None

    async def _answer(self, call: Call, tool: Tool, metrics: ToolMetrics) -> Reply:
        """From a recording, from the cache, or from the tool."""
        if call.run is not None and call.run.mode == "replay":
            return of_result(self._state.recordings.replay(call.run, tool.name, call.arguments))
        key, now = "", asyncio.get_running_loop().time()
        if tool.rule.cache_ttl_seconds and not tool.session:
            key = canonical(tool.name, call.arguments)
            if kept := self._cache.get(key, now):
                metrics.cache_hits.inc()
                return of_result(ToolResult(kept.outcome, kept.content, kept.structured, meta={"cached": True}))
        reply = await self._chain(call, tool, metrics)
        if call.run is not None and call.run.mode == "record":
            self._state.recordings.record(call.run, tool.name, call.arguments, reply.result())
        if key and reply.outcome is Outcome.OK and is_complete(reply):
            until = now + tool.rule.cache_ttl_seconds
            self._cache.put(key, reply.result(), until=until, size=len(wire.dumps(reply.value)))
        return reply

    async def _chain(self, call: Call, tool: Tool, metrics: ToolMetrics) -> Reply:
        """The tool, then its backups in order: the first answer that is not the infrastructure's fault."""
        first = reply = await self._attempts(call, tool, metrics, share=1 / (1 + len(tool.backups)))
        for number, standby in enumerate(tool.backups):
            if not reply.outcome.infrastructure or call.deadline <= asyncio.get_running_loop().time():
                break
            other = self._state.catalog.find(standby.tool)
            if other is None or (other.session and call.caller.lease is None):
                continue
            share = 1 / (len(tool.backups) - number)
            reply = await self._stand_in(call, standby, other, metrics, share)
        if reply.outcome.infrastructure and reply is not first:
            return Reply(first.outcome, problem=first.problem, meta=first.meta)
        return reply

    async def _stand_in(self, call: Call, standby: Backup, other: Tool, metrics: ToolMetrics, share: float) -> Reply:
        metrics.failovers.inc()
        try:
            arguments = backup.arguments(standby.argument_mapping, call.arguments)
        except KeyError as missing:
            told = f"backup {standby.tool!r} needs {missing.args[0]}, which the call does not give"
            return refused(Outcome.INVALID_ARGUMENTS, told, path=str(missing.args[0]))
        if problem := other.schema.problem(arguments):
            told = f"backup {standby.tool!r}, after mapping: {problem[0]}: {problem[1]}"
            return refused(Outcome.INVALID_ARGUMENTS, told, path=problem[0])
        params = {"_meta": call.params.get("_meta") or wire.modern_meta()}
        inner = Call(
            tool=other.name,
            arguments=arguments,
            caller=call.caller,
            request_id=call.request_id,
            deadline=call.deadline,
            params=params,
            rpc_id=call.rpc_id,
            trace=call.trace,
            emit=call.emit,
        )
        reply = await self._attempts(inner, other, metrics, share=share)
        call.attempts += inner.attempts
        meta = {**reply.meta, "backup": other.name}
        if not standby.result_mapping or reply.outcome is not Outcome.OK:
            return Reply(reply.outcome, reply.value, reply.error, None, reply.problem, meta)
        try:
            mapped = backup.result(standby.result_mapping, reply.result())
        except KeyError as missing:
            told = f"backup {standby.tool!r} answered without {missing.args[0]}"
            return Reply(Outcome.UNAVAILABLE, problem=CallError(told), meta=meta)
        return of_result(ToolResult(mapped.outcome, mapped.content, mapped.structured, mapped.error, meta))

    async def _attempts(self, call: Call, tool: Tool, metrics: ToolMetrics, *, share: float) -> Reply:
        """The same tool on one replica after another, within `share` of the time that is left."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (call.deadline - loop.time()) * share
        budget = self._state.budget
        budget.earn()
        tried: list[Replica] = []
        for attempt in range(1, retry.MAX_ATTEMPTS + 1):
            call.attempts += 1
            try:
                message = await self._attempt(call, tool, end, tried, attempt)
            except Failed as failed:
                failure = failed.failure
                again = retry.may_retry(tool.rule.retry, safe=tool.safe, failure=failure, attempt=attempt)
                wait = retry.wait(attempt, self._rng, failure.retry_after)
                if not again or loop.time() + wait >= end or not budget.spend():
                    return of_failure(failure)
                metrics.retries.inc()
                await asyncio.sleep(wait)
            else:
                return await self._told(call, message)
        raise AssertionError("the last attempt returns")

    async def _attempt(self, call: Call, tool: Tool, end: float, tried: list[Replica], attempt: int) -> Message:
        """One replica, one request. Raises `Failed`."""
        loop = asyncio.get_running_loop()
        if tool.session:
            return await self._in_session(call, tool, end - loop.time())
        pool = self._state.pool(tool.server)
        left = end - loop.time()
        scales_from_zero = pool.server.scale is not None and pool.server.scale.min == 0
        cold = left if scales_from_zero and not tool.backups else min(left, self._patience(tool))
        replica = await pool.acquire(
            tool.versions,
            avoid=tried,
            patience=min(left, self._state.config.limits.max_queue_seconds),
            cold_patience=cold,
        )
        tried.append(replica)
        # A safe call leaves time for another replica: a hung one must not take it all.
        chances = retry.MAX_ATTEMPTS - attempt + 1 if tool.safe and len(pool.replicas) > 1 else 1
        try:
            message = await self._exchange(call, tool, replica, max(0.001, (end - loop.time()) / chances))
        except Failed as failed:
            replica.unreachable = failed.failure.reach is Reach.NOT_SENT
            if failed.failure.outcome is not Outcome.OVERLOADED:
                replica.breaker.failed(loop.time())
            else:
                replica.breaker.abandoned()
            raise
        except BaseException:
            replica.breaker.abandoned()
            raise
        else:
            replica.breaker.succeeded()
            return message
        finally:
            pool.release(replica)

    def _patience(self, tool: Tool) -> float:
        return _COLD_WITH_BACKUP if tool.backups else self._state.config.limits.max_queue_seconds

    async def _exchange(self, call: Call, tool: Tool, replica: Replica, within: float) -> Message:
        state = self._state
        headers = self._headers(call, tool, within)
        if not replica.era:
            await state.hop.find_era(replica, headers={}, within=min(within, 10))
        raw = call.raw if call.tool == tool.tool else None
        return await state.hop.call(
            replica,
            "tools/call",
            {**call.params, "name": tool.tool, "arguments": call.arguments} if raw is None else call.params,
            headers=headers,
            within=within,
            raw=raw,
            name=tool.tool,
            rpc_id=call.rpc_id,
            emit=call.emit,
            movable=tool.safe,
        )

    def _headers(self, call: Call, tool: Tool, within: float) -> dict[str, str]:
        headers = {
            "X-Request-Id": call.request_id,
            "X-Pinnace-Deadline-Ms": str(int(within * 1000)),
            "traceparent": call.trace,
            **call.headers,
        }
        if call.caller.lease is not None:
            headers[SESSION_HEADER] = call.caller.lease.id
        if tool.param_headers and call.raw is None:
            headers |= mcp_param_headers(tool.param_headers, call.arguments)
        return headers

    async def _in_session(self, call: Call, tool: Tool, within: float) -> Message:
        """In the lease's sandbox: there is no other replica, and what ran may have left traces."""
        lease = call.caller.lease
        if lease is None:
            raise LookupError("a session's tool without a lease is refused before")
        replica = self._state.session_replica(lease.pod.url)
        headers = {**self._headers(call, tool, within), KEY_HEADER: self._state.leases.agents.key()}
        raw = call.raw if call.tool == tool.tool else None
        params = {**call.params, "name": tool.tool, "arguments": call.arguments}
        if not replica.scopes:
            replica.hung = False  # nobody has probed it since its last call
        lease.calls += 1
        try:
            return await self._state.hop.call(
                replica,
                "tools/call",
                params,
                headers=headers,
                within=within,
                raw=raw,
                name=tool.tool,
                rpc_id=call.rpc_id,
                emit=call.emit,
                movable=True,
            )
        except Failed as failed:
            if not replica.hung:
                raise
            raise Failed(Failure(Outcome.UNAVAILABLE, failed.failure.reach, _GONE, final=True)) from None
        finally:
            lease.calls -= 1
            lease.last_used = time.time()

    async def _told(self, call: Call, message: Message) -> Reply:
        """What a server's response means."""
        if message.result is None:
            return of_error(message)
        outcome = Outcome.TOOL_ERROR if message.result.get("isError") else Outcome.OK
        noted = (message.result.get("_meta") or {}).get("pinnace.dev/outcome")
        if noted in _OUTCOMES:
            outcome = Outcome(noted)
        limit = self._state.config.limits.result_bytes
        if len(message.raw) <= limit:
            return Reply(outcome, message.result, message=message.raw)
        capped = await results.cap(message.result, limit=limit, store=self._state.store, request_id=call.request_id)
        return Reply(outcome, capped)
