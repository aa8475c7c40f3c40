"""What a ToolSandbox says about single tools: names, limits, and what to do when one fails."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, Rule, matches
from pinnace_operator.api.fields import whole

QualifiedTool = Annotated[
    str,
    Field(min_length=3, max_length=128),
    matches(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\.[A-Za-z0-9_./-]+",
        "must be '<server>.<tool>', such as 'web.search', with the tool's name as its server gives it",
    ),
]
PublicTool = Annotated[
    str,
    Field(min_length=1, max_length=128),
    matches(
        r"[A-Za-z0-9_./-]+",
        "must be a tool's name as agents see it (its alias, or its own name): letters, digits and '_./-'",
    ),
]
Alias = Annotated[
    str,
    Field(min_length=1, max_length=64),
    matches(r"[A-Za-z0-9_-]+", "must be letters, digits, '_' and '-', at most 64 of them, such as 'web_search'"),
]

_PATH = r"\$(\.[A-Za-z_][A-Za-z0-9_-]*|\[[0-9]{1,4}\])*"
# A pattern, because rules on every value of every map would be beyond what the API server spends on a CRD.
MappingValue = Annotated[str, Field(max_length=1024, pattern=rf'^({_PATH}|[^$"](?s:.)*|"([^$](?s:.)*)?)?$')]
Mapping = Annotated[dict[str, MappingValue], Field(max_length=64)]


def literal(value: str) -> Any:
    """What a value of a mapping stands for: a path as it is, JSON as JSON (`10`, `true`, `[1]`), else the text."""
    if value.startswith("$"):
        return value
    try:
        found = json.loads(value, parse_constant=_no_constant)
    except ValueError:
        return value
    # Whatever begins with $ is a path to the gateway.
    return value if isinstance(found, str) and found.startswith("$") else found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


class Retry(StrEnum):
    """When a call that failed for reasons of the infrastructure is made again."""

    AUTO = "Auto"
    NEVER = "Never"
    ALWAYS = "Always"


class RateLimit(ApiModel):
    """A token bucket for each tenant; a call that finds it empty is answered `overloaded` with Retry-After."""

    per_second: Annotated[int, whole(1, 100_000)]
    """Calls a second in the long run."""
    burst: Annotated[int, whole(1, 1_000_000)]
    """Calls at once after a pause."""


class Backup(ApiModel):
    """Another tool that answers when this one can't, with its arguments made from this one's."""

    tool: PublicTool
    """The other tool's name as agents see it: its alias, or its own name."""
    argument_mapping: Mapping | None = None
    """Its arguments: paths into this tool's arguments (`$.query`) or literals; absent: the same arguments.

    A literal is JSON where it reads as such (`10`, `true`), else text."""
    result_mapping: Mapping | None = None
    """Fields of this tool's result: paths into the other's (`$.structuredContent.result`); absent: its result."""


class ToolPolicy(ApiModel):
    """What differs from the defaults for one tool."""

    name: QualifiedTool
    """`<server>.<tool>`, with the tool's name as its server gives it."""
    alias: Alias | None = None
    """Name that agents see instead of the tool's own."""
    timeout_seconds: Annotated[int, whole(1, 3600)] | None = None
    """Longest time of a call, waiting and retries included; absent: spec.gateway.defaultTimeoutSeconds."""
    cache_ttl_seconds: Annotated[int, whole(0, 604_800)] = 0
    """For how long a good answer to the same arguments is given again; 0: never."""
    retry: Retry = Retry.AUTO
    """Auto: only what the server marks as read-only or idempotent, or never left the gateway. Always: it is safe."""
    rate_limit: RateLimit | None = None
    backups: Annotated[tuple[Backup, ...], Field(max_length=4), ListType()] = ()
    """Tools to try, in this order, when no replica of this one can answer."""

    rules = (
        Rule(
            "!has(self.backups) || self.backups.all(b, has(self.alias) ? b.tool != self.alias"
            " : b.tool != self.name.substring(self.name.indexOf('.') + 1))",
            "tools.backups: a tool can't be its own backup: name another tool",
            lambda policy: all(each.tool not in policy.public_names[:1] for each in policy.backups),
            field=".backups",
        ),
    )

    @property
    def server(self) -> str:
        return self.name.partition(".")[0]

    @property
    def tool(self) -> str:
        """Its own name."""
        return self.name.partition(".")[2]

    @property
    def public_names(self) -> tuple[str, ...]:
        """What agents may see it as: its alias; or its own name, or with its server's when several have that name."""
        return (self.alias,) if self.alias else (self.tool, f"{self.server}__{self.tool}")
