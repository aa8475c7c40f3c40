"""The agent's side of the gateway: calls with typed outcomes, leases of sandboxes. Imports no server part.

async with ToolClient(url, token=token) as tools:
    async with tools.session(env={"SEED": "1"}) as sandbox:
        result = await sandbox.call("python", {"code": "print(1)"})
        if result.outcome.infrastructure: ...   # says nothing about the policy: the reward is unknown
"""

from __future__ import annotations

import asyncio
import base64
import random
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from pinnace.tools.outcome import CallError, Outcome, ToolResult

_SLACK = 5.0  # seconds that we wait beyond the call's own time limit: the gateway's typed answer should win
_DEFAULT_SECONDS = 600.0
_REQUEST = "pinnace.dev/request"  # label of a lease
_PART = 2 << 20  # bytes of one upload: as base64 below what a gateway accepts by default (4 MiB)
_HTTP = {401: Outcome.DENIED, 403: Outcome.DENIED, 404: Outcome.UNAVAILABLE, 429: Outcome.OVERLOADED}


class GatewayRefused(Exception):
    """The gateway did not do what was asked (leases, lists); `status` is HTTP's, 0 when it could not be reached.

    Calls never raise this: their end is a `ToolResult`.
    """

    def __init__(self, message: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True)
class Lease:
    """A lease as it is listed: without its token, which only its receiver knows. Times are RFC 3339."""

    id: str
    expires_at: str
    last_used: str
    idle_seconds: float
    labels: Mapping[str, str]


class ToolClient:
    """One tenant's (or one lease's) way to the tools. Safe for many tasks at a time; one pool of connections.

    Args:
        url: of the gateway, without a path.
        token: a tenant's or a lease's token.
        token_file: read anew for each request instead: a service-account token is renewed by the kubelet.
        http: an existing client to share; it is not closed.
    """

    def __init__(
        self, url: str, *, token: str = "", token_file: Path | None = None, http: httpx.AsyncClient | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._token_file = token_file
        self._own = http is None
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=4)
        self._http = http or httpx.AsyncClient(limits=limits, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._own:
            await self._http.aclose()

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ToolResult:
        """Call a tool. Always a result: what goes wrong on the way is an outcome too.

        Args:
            name: as listed by `tools`.
            arguments: JSON values.
            timeout_seconds: upper limit; the tool's own applies otherwise.
            headers: such as `traceparent`, `X-Request-Id`, `X-Pinnace-Replay` and `X-Pinnace-Replay-Key`.
        """
        body: dict[str, Any] = {"name": name, "arguments": dict(arguments or {})}
        if timeout_seconds is not None:
            body["timeoutSeconds"] = timeout_seconds
        limit = (timeout_seconds or _DEFAULT_SECONDS) + _SLACK
        try:
            answer = await self._http.post(
                f"{self.url}/call", json=body, headers={**self._headers(), **(headers or {})}, timeout=limit
            )
        except httpx.TimeoutException:
            return _failed(Outcome.TIMEOUT, f"the gateway did not answer within {limit:.0f} s")
        except httpx.TransportError as error:
            return _failed(Outcome.UNAVAILABLE, f"the gateway can't be reached: {type(error).__name__}")
        try:
            value = answer.json()
            if "outcome" in value:
                return ToolResult.from_json(value)
            message = str((value.get("error") or {}).get("message", ""))
        except (ValueError, TypeError, AttributeError):
            message = ""
        outcome = _HTTP.get(answer.status_code)
        if outcome is None:
            outcome = Outcome.UNAVAILABLE if answer.status_code >= 500 else Outcome.INVALID_ARGUMENTS
        return _failed(outcome, message or f"HTTP {answer.status_code}", _retry_after(answer))

    async def tools(self) -> list[dict[str, Any]]:
        """The tools as ChatCompletions takes them. Raises `GatewayRefused`."""
        return list((await self.listing())["tools"])

    async def listing(self) -> dict[str, Any]:
        """`tools`, and by name those `inSessions`, which need a lease. Raises `GatewayRefused`."""
        return await self._ask("GET", "/tools")

    async def lease(
        self,
        count: int = 1,
        *,
        ttl_seconds: float | None = None,
        idle_seconds: float | None = None,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        patience: float = 0,
    ) -> Sequence[Session]:
        """`count` sandboxes, all or none, each armed: environment and limits are in force.

        Args:
            count: of leases, a group's rollouts for instance.
            ttl_seconds, idle_seconds: until a lease ends by itself.
            env: of the sandboxes' programs.
            limits: of each sandbox: `memoryMiB`, `processes`, `cpuSeconds` and the like (docs/isolation.md).
            labels: shown with the lease.
            patience: seconds to try again while too few are free; the gateway itself holds the request a few seconds.

        Raises:
            GatewayRefused: 429 when too few are free, 400 for limits that can't be.
        """
        asked: dict[str, Any] = {"count": count, "env": dict(env or {})}
        asked["labels"] = {**(labels or {}), _REQUEST: secrets.token_hex(8)}
        if limits:
            asked["limits"] = dict(limits)
        if ttl_seconds is not None:
            asked["ttlSeconds"] = ttl_seconds
        if idle_seconds is not None:
            asked["idleSeconds"] = idle_seconds
        end = asyncio.get_running_loop().time() + patience
        while True:
            try:
                found = await self._ask("POST", "/sessions", asked)
            except asyncio.CancelledError:
                await asyncio.shield(self._give_back(asked["labels"][_REQUEST]))
                raise
            except GatewayRefused as refused:
                # Not all at the same moment: groups that take half of the pool each would block each other again.
                wait = (refused.retry_after or 1.0) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
                if refused.status != 429 or asyncio.get_running_loop().time() + wait > end:
                    raise
                await asyncio.sleep(wait)
            else:
                return [Session(self, each) for each in found["sessions"]]

    async def _give_back(self, request: str) -> None:
        """End what the gateway has given to a request whose answer nobody reads any more."""
        with suppress(GatewayRefused):
            for each in (await self._ask("GET", "/sessions"))["sessions"]:
                if each["labels"].get(_REQUEST) == request:
                    await self.release(each["id"])

    async def leases(self) -> list[Lease]:
        """The tenant's leases that have not ended, whoever got them: after a crash, say. Raises `GatewayRefused`."""
        found = await self._ask("GET", "/sessions")
        for each in found["sessions"]:
            each["labels"].pop(_REQUEST, None)
        return [
            Lease(each["id"], each["expiresAt"], each["lastUsed"], each["idleSeconds"], each["labels"])
            for each in found["sessions"]
        ]

    async def release(self, lease_id: str) -> None:
        """End a lease; one that has ended already is as good. Raises `GatewayRefused`."""
        try:
            await self._ask("DELETE", f"/sessions/{lease_id}")
        except GatewayRefused as refused:
            if refused.status != 404:
                raise

    @asynccontextmanager
    async def session(self, **options: Any) -> AsyncIterator[Session]:
        """One sandbox for the length of a block; options as of `lease`. Raises `GatewayRefused`."""
        (leased,) = await self.lease(1, **options)
        try:
            yield leased
        finally:
            await leased.end()

    async def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            answer = await self._http.request(
                method, self.url + path, json=body, headers=self._headers(), timeout=_DEFAULT_SECONDS
            )
        except httpx.TransportError as error:
            raise GatewayRefused(f"the gateway can't be reached: {type(error).__name__}", status=0) from None
        if answer.status_code >= 400:
            try:
                message = str(answer.json()["error"]["message"])
            except (ValueError, KeyError, TypeError):
                message = answer.text[:300]
            raise GatewayRefused(message, status=answer.status_code, retry_after=_retry_after(answer))
        return dict(answer.json()) if answer.content else {}

    def _headers(self) -> dict[str, str]:
        token = self._token_file.read_text().strip() if self._token_file else self._token
        return {"Authorization": f"Bearer {token}"} if token else {}


class Session(ToolClient):
    """A lease: its calls run in its own sandbox, or on shared servers where the tool is stateless."""

    def __init__(self, tenant: ToolClient, given: Mapping[str, Any]) -> None:
        super().__init__(tenant.url, token=str(given["token"]), http=tenant._http)
        self.id = str(given["id"])
        self.token = str(given["token"])
        self.expires_at = str(given["expiresAt"])

    async def upload(self, path: str, content: Path | bytes) -> ToolResult:
        """Put a file into the workspace, in parts where it is long. The outcome is that of the first part that fails.

        Args:
            path: in the workspace; folders on the way are made.
            content: bytes, or a file of this machine.
        """
        data = await asyncio.to_thread(content.read_bytes) if isinstance(content, Path) else content
        for start in range(0, max(len(data), 1), _PART):
            part = base64.b64encode(data[start : start + _PART]).decode()
            result = await self.call("upload", {"path": path, "data": part, "append": start > 0})
            if not result.ok:
                break
        return result

    async def renew(self, ttl_seconds: float | None = None) -> None:
        """A new hard limit, counted from now. Raises `GatewayRefused`."""
        body = {} if ttl_seconds is None else {"ttlSeconds": ttl_seconds}
        found = await self._ask("POST", f"/sessions/{self.id}/renew", body)
        self.expires_at = str(found["expiresAt"])

    async def reset(self) -> None:
        """Empty workspace, no process left; the lease stays. Raises `GatewayRefused`."""
        await self._ask("POST", f"/sessions/{self.id}/reset", {})

    async def snapshot(self) -> str:
        """The workspace as a tar file in S3; its address. Raises `GatewayRefused`."""
        found = await self._ask("POST", f"/sessions/{self.id}/snapshot", {})
        return str(found["uri"])

    async def replay(self, mode: str, key: str = "") -> None:
        """Record this lease's calls under `key`, serve them from there, or neither (`off`). Raises `GatewayRefused`."""
        await self._ask("POST", "/replay", {"mode": mode, "key": key})

    async def end(self) -> None:
        """Give the sandbox back; one that has ended already is as good. Raises `GatewayRefused`."""
        try:
            await self.release(self.id)
        except GatewayRefused as refused:
            if refused.status != 401:  # its token has ended with it
                raise


@dataclass(frozen=True)
class Offered:
    """What an agent gets of a gateway's tools: a `pinnace.agent.Tools`.

    Attributes:
        client: a tenant's, or a lease's.
        listed: the tools in OpenAI's form.
    """

    client: ToolClient
    listed: Sequence[Mapping[str, Any]]

    async def schemas(self) -> Sequence[Mapping[str, Any]]:
        """Those listed."""
        return self.listed

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Call one; that the lease has ended is `unavailable`, for it is not the agent's doing."""
        result = await self.client.call(name, arguments)
        if result.outcome is Outcome.DENIED and not result.meta:
            # Turned away at the door: the lease has ended. A call that the gateway itself denies has a request id.
            return replace(result, outcome=Outcome.UNAVAILABLE)
        return result


def _failed(outcome: Outcome, message: str, retry_after: float | None = None) -> ToolResult:
    return ToolResult(outcome, error=CallError(message, retry_after=retry_after))


def _retry_after(answer: httpx.Response) -> float | None:
    try:
        return float(answer.headers["Retry-After"])
    except (KeyError, ValueError):
        return None


def near(name: str, listed: Collection[str]) -> str:
    """For a message about a tool that is not there: the names that look like it, else how many there are."""
    return ", ".join(get_close_matches(name, listed, n=3, cutoff=0.4)) or f"{len(listed)} others"
