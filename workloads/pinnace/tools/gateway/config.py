"""The gateway's configuration: one JSON document, strict (docs/toolsandbox-contract.md §3)."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from pinnace.tools.gateway import jsonpath
from pinnace.tools.gateway.backup import cycle
from pinnace.tools.gateway.errors import ConfigInvalid, MappingInvalid

Name = Annotated[str, Field(min_length=1, max_length=128)]
Url = Annotated[str, Field(pattern=r"^https?://[^/\s]+(/\S*)?$")]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Version(_Part):
    """One version of a server, and where its replicas are.

    `endpoints` are base URLs (local form); in a cluster the ready addresses of `service`'s EndpointSlices count.
    """

    name: Name = "v1"
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    service: str = ""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8080
    path: Annotated[str, Field(pattern="^/")] = "/mcp"
    endpoints: tuple[Url, ...] = ()


class Scale(_Part):
    """Bounds of the server's replicas; the operator scales, the gateway only tells it the load."""

    min: Annotated[int, Field(ge=0)] = 1
    max: Annotated[int, Field(ge=1)] = 1
    target_in_flight: Annotated[int, Field(ge=1)] = 8


class Server(_Part):
    """One tool server. `include` and `exclude` hold names of its tools; an empty `include` means all.

    With isolation Session it runs in the sandboxes, under the name that it has in the `catalogue`.
    """

    name: Name
    catalogue: str = ""
    isolation: Literal["Shared", "Session"] = "Shared"
    versions: Annotated[tuple[Version, ...], Field(max_length=16)] = ()
    scale: Scale | None = None
    include: tuple[Name, ...] = ()
    exclude: tuple[Name, ...] = ()
    max_in_flight_per_replica: Annotated[int, Field(ge=1)] = 32
    queue: Annotated[int, Field(ge=0)] = 256
    failure_threshold: Annotated[int, Field(ge=1)] = 5
    ejection_seconds: Annotated[float, Field(gt=0, le=3600)] = 10

    @model_validator(mode="after")
    def _named_once(self) -> Server:
        _once(f"servers[{self.name}].versions", (each.name for each in self.versions))
        return self


class RateLimit(_Part):
    """A token bucket for each tenant."""

    per_second: Annotated[float, Field(gt=0)]
    burst: Annotated[int, Field(ge=1)] = 1


class Backup(_Part):
    """A tool that stands in, with mappings of JSON paths (`$.a.b[0]`) or literals; an empty mapping hands all over."""

    tool: Name
    argument_mapping: dict[str, Any] = Field(default_factory=dict)
    result_mapping: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _readable(self) -> Backup:
        for key, value in (*self.argument_mapping.items(), *self.result_mapping.items()):
            try:
                jsonpath.check(value)
            except MappingInvalid as error:
                raise ValueError(f"mapping of {key!r}: {error}") from None
        return self


class ToolRule(_Part):
    """What holds for one tool of one server."""

    server: Name
    tool: Name
    alias: Name | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    cache_ttl_seconds: Seconds = 0
    retry: Literal["Auto", "Never", "Always"] = "Auto"
    rate_limit: RateLimit | None = None
    backups: Annotated[tuple[Backup, ...], Field(max_length=8)] = ()

    @property
    def public(self) -> str:
        """The name that agents see, unless another server's tool has the same."""
        return self.alias or self.tool


class Sessions(_Part):
    """The warm pool of session pods. `endpoints` are the agents' base URLs (local form)."""

    service: str = ""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8081
    endpoints: tuple[Url, ...] = ()
    max: Annotated[int, Field(ge=0)] = 100
    idle_seconds: Annotated[float, Field(gt=0)] = 600
    hard_seconds: Annotated[float, Field(gt=0)] = 7200
    recycle: Literal["Delete", "Restart", "Noop"] = "Restart"
    servers: tuple[Name, ...] = ()


class Limits(_Part):
    """Bounds of the whole gateway process."""

    request_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 4 << 20
    result_bytes: Annotated[int, Field(ge=256, le=1 << 30)] = 256 << 10
    default_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60
    max_in_flight: Annotated[int, Field(ge=1)] = 1024
    max_queue_seconds: Seconds = 10
    retry_budget_percent: Annotated[float, Field(ge=0, le=100)] = 20


class Auth(_Part):
    """Who may call. `None` is refused unless the gateway listens on loopback."""

    mode: Literal["None", "Token", "ServiceAccount"] = "Token"


class Results(_Part):
    """Where results above `limits.resultBytes`, snapshots and recordings go: `s3://…`.

    Empty: the folder `results` of the run that the environment names, if it does.
    """

    uri: Annotated[str, Field(pattern="^(s3://.+)?$")] = ""


class GatewayConfig(_Part):
    """The whole document."""

    version: Literal[1]
    generation: Annotated[int, Field(ge=0)] = 0
    name: Name = "tools"
    namespace: str = "default"
    uid: str = ""
    servers: Annotated[tuple[Server, ...], Field(max_length=256)] = ()
    tools: Annotated[tuple[ToolRule, ...], Field(max_length=4096)] = ()
    sessions: Sessions | None = None
    limits: Limits = Limits()
    auth: Auth = Auth()
    results: Results = Results()
    peers: tuple[Url, ...] = ()
    """Base URLs of the other gateways of the same ToolSandbox (local form)."""

    @model_validator(mode="after")
    def _consistent(self) -> GatewayConfig:
        _once("servers", (server.name for server in self.servers))
        _once("tools (server, tool)", (f"{rule.server}.{rule.tool}" for rule in self.tools))
        _once("aliases", (rule.alias for rule in self.tools if rule.alias))
        known = {server.name for server in self.servers}
        for rule in self.tools:
            if rule.server not in known and self.sessions is None:
                raise ValueError(f"tools[{rule.server}.{rule.tool}]: there is no server {rule.server!r}")
        ring = cycle({rule.public: [each.tool for each in rule.backups] for rule in self.tools})
        if ring:
            raise ValueError(f"backups go in a circle: {' → '.join(ring)}: remove one of them")
        return self

    def rule(self, server: str, tool: str) -> ToolRule:
        """The rule for a tool; the defaults when there is none."""
        found = next((rule for rule in self.tools if rule.server == server and rule.tool == tool), None)
        return found or ToolRule(server=server, tool=tool)


def _once(where: str, names: Any) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: {', '.join(map(repr, twice))} stands there more than once")


def parse(document: bytes | str) -> GatewayConfig:
    """Raises `ConfigInvalid` with the first few faults, each with its place."""
    try:
        return GatewayConfig.model_validate_json(document, strict=True)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        told = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'document'}: {each['msg']}" for each in faults[:5])
        raise ConfigInvalid(f"gateway.json is refused: {told}") from None
