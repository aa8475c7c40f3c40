"""An attempt's tools: none, a function's, or a ToolSandbox's by its gateway, with a sandbox of the attempt's own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pinnace.agent import NoTools, Tools
from pinnace.tools.client import GatewayRefused, Offered, Session, ToolClient, near
from pinnace.tools.outcome import Outcome

from .errors import BadPlan, ToolsRefused, ToolsUnavailable
from .item import Item
from .plan import ToolsFor

T = TypeVar("T")
UPLOAD = "upload"
_LARGEST = 8 << 20
_NO_SESSIONS = 404
_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds
_UPLOAD_TRIES = 8
_RENEW_SECONDS = 600
_FIRST_PATIENCE = 5  # seconds: before anything has begun, a wrong address should be told soon


@dataclass(frozen=True)
class GatewayOptions:
    """A ToolSandbox.

    Attributes:
        url: of its gateway, without a path.
        token: a tenant's; or `token_file`, read anew for each request.
        patience: seconds that a refusal (no free sandbox, gateway away) is borne before the attempt is given up.
        idle_seconds: after which a sandbox that nobody uses is given back, as when this process was killed.
    """

    url: str
    token: str = ""
    token_file: Path | None = None
    patience: float = 600
    idle_seconds: float = 1800


class GatewayTools:
    """A gateway's tools, the same list for every attempt; typed outcomes come through as they are.

    Args:
        offered: names of those that the agent gets; none: all.
    """

    def __init__(self, options: GatewayOptions, offered: Sequence[str] = ()) -> None:
        self._options = options
        self._offered = offered
        self.client = ToolClient(options.url, token=options.token, token_file=options.token_file)
        self._listed: dict[str, dict[str, Any]] | None = None
        self._in_sessions: frozenset[str] = frozenset()

    async def list(self, *, patience: float | None = None) -> dict[str, dict[str, Any]]:
        """All tools by name, in OpenAI's form, asked for once. Raises `ToolsUnavailable`."""
        if self._listed is None:
            told = await self._insist(self.client.listing, patience=patience)
            self._listed = {each["function"]["name"]: each for each in told["tools"]}
            self._in_sessions = frozenset(told["inSessions"])
        return self._listed

    async def offer(self) -> Sequence[dict[str, Any]]:
        """The tools that the agent gets. Raises `ToolsUnavailable`, and `BadPlan` if one of them is not there."""
        listed = await self.list()
        for name in self._offered:
            if name not in listed:
                raise BadPlan(f"--offer {name}: {self._options.url} has no such tool; there is {near(name, listed)}")
        return [each for name, each in listed.items() if not self._offered or name in self._offered]

    async def digest(self) -> str:
        """Changes when what is offered does: records of two sets of tools don't mix. Raises as `offer`."""
        listed = sorted(json.dumps(each, sort_keys=True, ensure_ascii=False) for each in await self.offer())
        return f"sha256:{hashlib.sha256(chr(10).join(listed).encode()).hexdigest()}"

    @asynccontextmanager
    async def __call__(self, item: Item) -> AsyncIterator[Tools]:
        """One attempt's tools. If one of them or the item's files need it, with a lease, which is given back whatever
        happens.

        Raises:
            ToolsUnavailable: not the agent's doing; nothing was asked of the model yet.
        """
        offered = await self.offer()
        if not item.files and self._in_sessions.isdisjoint(each["function"]["name"] for each in offered):
            yield Offered(self.client, offered)
            return
        try:
            (session,) = await self._insist(lambda: self.client.lease(1, idle_seconds=self._options.idle_seconds))
        except _NoSessions:
            raise ToolsUnavailable(f"{item.id}: the ToolSandbox has no sessions (any more)") from None
        keeping = asyncio.create_task(_keep(session))
        try:
            for path in item.files:
                await self._upload(session, path)
            yield Offered(session, offered)
        finally:
            keeping.cancel()
            with suppress(ToolsUnavailable):  # then its idle time ends it
                await self._insist(session.end, patience=10)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self.client.close()

    async def _upload(self, session: Session, path: Path) -> None:
        body = {"path": path.name, "data": base64.b64encode(await asyncio.to_thread(path.read_bytes)).decode()}
        for _ in range(_UPLOAD_TRIES):
            result = await session.call(UPLOAD, body)
            if result.ok:
                return
            if not result.outcome.infrastructure:
                break
            await asyncio.sleep(_PAUSE)
        raise ToolsUnavailable(f"{path.name} could not be put into the workspace: {result.outcome}: {result.text}")

    async def _insist(self, ask: Callable[[], Awaitable[T]], *, patience: float | None = None) -> T:
        """Asks until it is done, or `patience` is at its end."""
        clock = asyncio.get_running_loop().time
        end, pause = clock() + (self._options.patience if patience is None else patience), _PAUSE
        while True:
            try:
                return await ask()
            except GatewayRefused as refused:
                if refused.status == _NO_SESSIONS:
                    raise _NoSessions from None
                told = f"{self._options.url}: {refused}"
                if 400 <= refused.status < 500 and refused.status != 429:
                    raise ToolsRefused(f"{told} (HTTP {refused.status}): check the address and the token") from None
                wait = min(refused.retry_after or pause, _LONGEST_PAUSE)
                if clock() + wait > end:
                    raise ToolsUnavailable(told) from None
            await asyncio.sleep(wait)
            pause *= 2


async def _keep(session: Session) -> None:
    """Puts the lease's hard limit off, as long as the attempt goes on."""
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        with suppress(GatewayRefused):
            await session.renew()


class _NoSessions(Exception):
    """The ToolSandbox has shared servers only."""


def gateway_at(url: str) -> GatewayOptions:
    """A gateway, with the token of PINNACE_TOOLS_TOKEN or of the file that PINNACE_TOOLS_TOKEN_FILE names."""
    file = os.environ.get("PINNACE_TOOLS_TOKEN_FILE")
    return GatewayOptions(url, os.environ.get("PINNACE_TOOLS_TOKEN", ""), Path(file) if file else None)


def tools_for(where: str, offered: Sequence[str] = ()) -> ToolsFor:
    """`none`, a gateway's address, or `module:function` giving an async context manager of `Tools` for an item.

    Args:
        offered: names of the gateway's tools that the agent gets; none: all.

    Raises:
        BadPlan: it is none of these.
    """
    if where == "none":
        return _no_tools
    if where.startswith(("http://", "https://")):
        return GatewayTools(gateway_at(where), offered)
    module, _, name = where.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadPlan(f"--tools {where!r}: {error}; write `none` or module:function, or a gateway's http://…") from None
    if not callable(found):
        raise BadPlan(f"--tools {where!r} is not callable")
    factory: Callable[[Item], AbstractAsyncContextManager[Tools]] = found
    return factory


async def check_gateway(tools: GatewayTools, items: Sequence[Item], url: str, *, needs: Iterable[str] = ()) -> str:
    """Whether the gateway answers, has the tools, and can take the items' files; the digest of what is offered.

    Raises:
        BadPlan, ToolsUnavailable
    """
    listed = await tools.list(patience=_FIRST_PATIENCE)
    if not listed:
        raise ToolsUnavailable(f"{url} has no tools: kubectl describe toolsandbox says why")
    if missing := [name for name in needs if name not in listed]:
        raise BadPlan(
            f"{url} has no tool {missing[0]!r}, which these questions need: add its server (for Scout `world` of the "
            "catalogue), without an alias"
        )
    offered = {each["function"]["name"] for each in await tools.offer()}
    if missing := [name for name in needs if name not in offered]:
        raise BadPlan(f"--offer leaves out {missing[0]!r}, which these questions need: add it")
    files = [path for item in items for path in item.files]
    if files and UPLOAD not in listed:
        raise BadPlan(f"{url}: {len(files)} questions have files, and there is no tool {UPLOAD!r}: set spec.sessions")
    if large := [path for path in files if path.stat().st_size > _LARGEST]:
        raise BadPlan(f"{large[0]} is larger than the 8 MiB that a workspace takes at once: leave its item out (--ids)")
    await _check_world(tools, items, url)
    return await tools.digest()


async def _check_world(tools: GatewayTools, items: Sequence[Item], url: str) -> None:
    """Whether the tools are of the world that the questions are about. Raises `BadPlan`."""
    page = next((item.page for item in items if item.page), None)
    if page is None:
        return
    result = await tools.client.call("open", {"url": page})
    if result.outcome is Outcome.TOOL_ERROR:
        raise BadPlan(
            f"{url} can't open {page}, from which a question starts: its server `world` serves another world than the "
            "questions are about; give that server the variables which `pinnace tools world scout` printed (none for "
            "the questions that come with Pinnace)"
        )


@asynccontextmanager
async def _no_tools(item: Item) -> AsyncIterator[Tools]:  # noqa: ARG001 - the protocol's
    yield NoTools()
