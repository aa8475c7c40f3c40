"""The tools that agents see: unique names, rules, schemas. Pure: built anew from configuration and listings."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcp.shared.inbound import x_mcp_header_map

from pinnace.tools.gateway import backup, retry
from pinnace.tools.gateway.config import Backup, GatewayConfig, Server, ToolRule
from pinnace.tools.gateway.errors import MappingInvalid
from pinnace.tools.gateway.schema import ArgumentSchema, untitled

SESSIONS = "(sessions)"  # the pool of session pods, as if it were a server; no server can have this name
_OPENAI_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TTL_MS = 5_000

Listing = Mapping[str, Sequence[Mapping[str, Any]]]  # version → the tools that its server lists


@dataclass(eq=False)
class Tool:
    """One tool as agents see it.

    Args:
        name: public.
        server, tool: where it is and what it is called there.
        definition: as listed to agents.
        versions: those of the server's versions that have it.
        safe: running it twice does no harm.
    """

    name: str
    server: str
    tool: str
    rule: ToolRule
    definition: dict[str, Any]
    schema: ArgumentSchema
    versions: frozenset[str]
    safe: bool
    backups: tuple[Backup, ...] = ()
    param_headers: Mapping[tuple[str, ...], str] = field(default_factory=dict)

    @property
    def session(self) -> bool:
        """Whether it lives in a lease's sandbox."""
        return self.server == SESSIONS

    @property
    def renamed(self) -> bool:
        return self.name != self.tool


@dataclass(frozen=True)
class Catalog:
    """All tools by public name, and what is wrong with some (reported, never fatal)."""

    tools: Mapping[str, Tool]
    problems: tuple[str, ...] = ()
    by_openai_name: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str) -> Tool | None:
        """By public name, or by the form of it that OpenAI's API accepts."""
        return self.tools.get(name) or self.tools.get(self.by_openai_name.get(name, ""))

    def nearest(self, name: str) -> tuple[str, ...]:
        """Up to three names that look like `name`, the most alike first."""
        names = {each.lower(): each for each in self.tools}
        return tuple(names[each] for each in difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5))

    def list_result(self, *, legacy: bool) -> dict[str, Any]:
        """The result of `tools/list`, in one page, in a fixed order."""
        definitions = [self.tools[name].definition for name in sorted(self.tools)]
        if legacy:
            return {"tools": [_before_2026(each) for each in definitions]}
        return {"resultType": "complete", "tools": definitions, "ttlMs": _TTL_MS, "cacheScope": "private"}

    def openai(self) -> list[dict[str, Any]]:
        """The tools as ChatCompletions wants them."""
        return [
            {
                "type": "function",
                "function": {
                    "name": openai_name(name),
                    "description": self.tools[name].definition.get("description", ""),
                    # MCP's SDK moves `type` to the end; models were trained on schemas that begin with it.
                    "parameters": {"type": "object", **untitled(self.tools[name].definition.get("inputSchema") or {})},
                },
            }
            for name in sorted(self.tools)
        ]

    def in_sessions(self) -> list[str]:
        """Which of `openai()` live in a lease's sandbox, by name."""
        return [openai_name(name) for name in sorted(self.tools) if self.tools[name].session]


def openai_name(name: str) -> str:
    """`name` where OpenAI's API accepts it, else with `_` for what it refuses, at most 64 characters."""
    return name if _OPENAI_NAME.fullmatch(name) else re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]


def _before_2026(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Before 2026-07-28 an output schema could only be an object's; clients refuse the whole list otherwise."""
    output = definition.get("outputSchema")
    if isinstance(output, Mapping) and output.get("type") == "object":
        return dict(definition)
    return {key: value for key, value in definition.items() if key != "outputSchema"}


def build(config: GatewayConfig, listings: Mapping[str, Listing]) -> Catalog:
    """Names, rules and schemas of everything that the servers list.

    Args:
        config: the document in force.
        listings: by server (or `SESSIONS`); a server that has not answered yet is missing, and so are its tools.
    """
    problems: list[str] = []
    found = [each for server in sorted(listings) for each in _of_server(config, server, listings[server], problems)]
    wanted = Counter(tool.name for tool in found)
    tools: dict[str, Tool] = {}
    for tool in found:
        if wanted[tool.name] > 1:
            public = f"{'session' if tool.session else tool.server}__{tool.tool}"
            problems.append(f"tool name {tool.name!r} is used by several servers: {tool.server}'s is {public!r} now")
            tool.name = public
        if tool.name in tools:
            problems.append(f"tool {tool.server}.{tool.tool} is not served: the name {tool.name!r} is taken")
            continue
        tool.definition = {**tool.definition, "name": tool.name}
        tools[tool.name] = tool
    for tool in tools.values():
        tool.backups = tuple(each for each in tool.rule.backups if _usable(each, tool, tools, problems))
    names = {openai_name(name): name for name in tools}
    return Catalog(tools, tuple(problems), names)


def _of_server(config: GatewayConfig, server: str, listing: Listing, problems: list[str]) -> list[Tool]:
    tools: dict[str, Tool] = {}
    for version, definitions in listing.items():
        for definition in definitions:
            name = str(definition.get("name", ""))
            inside, own = _origin(definition, server, name)
            settings = _settings(config, server, inside)
            if not name or (settings and not _shown(own, settings.include, settings.exclude)):
                continue
            if name in tools:
                tools[name].versions |= {version}
                continue
            try:
                rule = _rule(config, (settings.name if settings else inside, inside), own)
                tools[name] = _tool(rule, server, name, definition, version)
            except (TypeError, ValueError, AttributeError, LookupError, RecursionError) as error:
                problems.append(f"tool {server}.{name} is not served: its definition can't be read ({error!r:.200})")
                continue
            if fault := tools[name].schema.fault:
                problems.append(f"tool {server}.{name}: {fault}")
    return list(tools.values())


def _tool(rule: ToolRule, server: str, name: str, definition: Mapping[str, Any], version: str) -> Tool:
    hints = definition.get("annotations") or {}
    schema = definition.get("inputSchema") or {"type": "object"}
    return Tool(
        name=rule.alias or name,
        server=server,
        tool=name,
        rule=rule,
        definition=_public(definition),
        schema=ArgumentSchema(schema),
        versions=frozenset({version}),
        safe=retry.is_safe(
            rule.retry,
            read_only=hints.get("readOnlyHint") is True,
            idempotent=hints.get("idempotentHint") is True,
        ),
        param_headers=x_mcp_header_map(schema),
    )


def _origin(definition: Mapping[str, Any], server: str, name: str) -> tuple[str, str]:
    """(server, the tool's own name there): sandboxes have several servers, whose names may clash."""
    meta = definition.get("_meta") or {}
    if server != SESSIONS:
        return server, name
    return str(meta.get("pinnace.dev/server", server)), str(meta.get("pinnace.dev/tool", name))


def _settings(config: GatewayConfig, server: str, inside: str) -> Server | None:
    if server != SESSIONS:
        return next((each for each in config.servers if each.name == server), None)
    mine = (each for each in config.servers if each.isolation == "Session")
    return next((each for each in mine if (each.catalogue or each.name) == inside), None)


def _rule(config: GatewayConfig, servers: Sequence[str], tool: str) -> ToolRule:
    """The rule for a tool under one of its server's names; the defaults when there is none."""
    found = (rule for rule in config.tools if rule.tool == tool and rule.server in servers)
    return next(found, None) or ToolRule(server=servers[0], tool=tool)


def _shown(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return (not include or name in include) and name not in exclude


def _public(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Without what names a server: agents see capabilities only."""
    kept = dict(definition)
    meta = {key: value for key, value in (kept.pop("_meta", None) or {}).items() if not key.startswith("pinnace.dev/")}
    return {**kept, "_meta": meta} if meta else kept


def _usable(each: Backup, tool: Tool, tools: Mapping[str, Tool], problems: list[str]) -> bool:
    other = tools.get(each.tool)
    if other is None:
        problems.append(f"backup {each.tool!r} of {tool.name!r} is not served (yet)")
        return False
    try:
        backup.check(each.argument_mapping, source=_schema(tool), target=_schema(other))
    except MappingInvalid as error:
        problems.append(f"backup {each.tool!r} of {tool.name!r} is not used: {error}")
        return False
    return True


def _schema(tool: Tool) -> Mapping[str, Any]:
    return tool.definition.get("inputSchema") or {}
