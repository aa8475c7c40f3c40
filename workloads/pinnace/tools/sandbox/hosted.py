"""Servers of the catalogue in the sandbox: their tools as agents see them, and what a call of one has come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pinnace.tools.catalogue import Entry, Granted, entry, refusal
from pinnace.tools.executor.frames import Message
from pinnace.tools.outcome import CallError, Outcome, ToolResult
from pinnace.tools.sandbox.link import Link
from pinnace.tools.sandbox.toolset import SERVER, TOOL, TOOLS

_LIST_SECONDS = 120.0


class NotListed(Exception):
    """A server did not list its tools."""


class Hosted:
    """The servers by name. What the executor says of them is believed only until the first lease.

    Args:
        entries: of the catalogue.
        internet: whether the sandbox reaches it.
    """

    def __init__(self, entries: Mapping[str, Entry], *, internet: bool) -> None:
        self.entries = entries
        self._internet = internet
        self.tools: list[dict[str, Any]] = []
        self.listed = not entries

    @classmethod
    def of(cls, names: Iterable[str], *, internet: bool) -> Hosted:
        """Raises `CatalogueError` for a name that the catalogue has not."""
        return cls({name: entry(name) for name in names}, internet=internet)

    async def learn(self, link: Link) -> None:
        """Asks each for its tools. Raises `NotListed`, `ExecutorLost`."""
        found: dict[str, dict[str, Any]] = {}
        for server in self.entries:
            reply = await link.call("server", _LIST_SECONDS, server=server, do="list", seconds=_LIST_SECONDS)
            if not isinstance(reply.get("tools"), list):
                raise NotListed(f"server {server} does not list its tools: {reply.get('message', reply)}")
            for tool in reply["tools"]:
                name = str(tool["name"])
                public = name if name not in TOOLS and name not in found else f"{server}__{name}"
                found[public] = {**tool, "name": public, "_meta": {SERVER: server, TOOL: name}}
        self.tools, self.listed = list(found.values()), True

    def find(self, public: str) -> tuple[str, str] | None:
        """(server, its own name for the tool)."""
        found = next((tool["_meta"] for tool in self.tools if tool["name"] == public), None)
        return (found[SERVER], found[TOOL]) if found else None

    def refusal(self, server: str, tool: str, environment: Iterable[str]) -> ToolResult | None:
        """Where the tool lacks what it needs: the sandbox is not asked. `environment` has the lease's names."""
        granted = Granted(internet=self._internet, variables=frozenset(environment))
        told = refusal(self.entries[server], tool, granted)
        return ToolResult(Outcome.UNAVAILABLE, error=CallError(told)) if told else None


def result(reply: Message, server: str) -> ToolResult:
    """The lease's code may have written `reply`: it can say that a call failed or took too long, and no more."""
    if "result" not in reply:
        told = str(reply.get("message") or f"the server {server} was ended; it is started afresh")[:2000]
        return ToolResult(Outcome.TOOL_ERROR, error=CallError(told))
    said = ToolResult.from_mcp(reply["result"])
    content = tuple(block for block in said.content if isinstance(block, dict))
    if said.outcome in {Outcome.OK, Outcome.TIMEOUT}:
        return ToolResult(said.outcome, content, said.structured, said.error)
    return ToolResult(
        Outcome.TOOL_ERROR, content, said.structured, said.error or CallError(f"{server} reports an error")
    )
