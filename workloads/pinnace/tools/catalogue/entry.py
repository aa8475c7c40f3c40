"""What the catalogue says about a server."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pinnace.tools.outcome import Outcome

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,19}$")]  # a server's name in a ToolSandbox
EnvName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class Runtime(StrEnum):
    """Where a server's package lives. Servers written against the MCP SDK 1.x and 2.x can't share an environment."""

    OWN = "own"
    PYTHON_MCP1 = "python-mcp1"
    PYTHON_MCP2 = "python-mcp2"
    NPM = "npm"


class Isolation(StrEnum):
    """`Shared`: any replica may answer anybody. `Session`: its state is one trajectory's; each lease needs its own."""

    SHARED = "Shared"
    SESSION = "Session"


class State(StrEnum):
    """What a server keeps between calls: nothing, something in its process, or files in its workspace."""

    NONE = "none"
    PROCESS = "process"
    FILES = "files"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Secret(_Model):
    """A value from a Kubernetes Secret, as an environment variable of the server. Empty `tools` means all of them."""

    env: EnvName
    purpose: str
    required: bool = True
    tools: tuple[str, ...] = ()


class Program(_Model):
    """A program that is not in the image of tool servers. `env` names it to the server; `["*"]` means all tools."""

    name: str
    env: EnvName
    tools: tuple[str, ...]


class Needs(_Model):
    """What a server can't do without. `internet` lists the tools that need it; `["*"]` means all."""

    internet: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    program: Program | None = None


class Canary(_Model):
    """A call that proves the server works, harmless to repeat, and the type of outcome it must have."""

    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    outcome: Outcome = Outcome.OK


class Entry(_Model):
    """One server.

    Args:
        name: as `spec.servers[].catalogue` says it.
        summary: one line for the docs.
        package: its name in the registry of its runtime; for our own servers the module.
        version: exact.
        licence: SPDX expression.
        program: the console script (Python), the bin (npm) or the module (own) that starts it.
        arguments: of that program; `{workspace}` is the folder it may write.
        env: set always. Values may have `{workspace}`.
        options: further environment variables that it understands, passed on when they are set.
        tools: exactly what `tools/list` gives.
        state: see `State`.
        concurrency: calls that one process is given at a time.
        start_seconds: how long the handshake may take.
        failure: for servers that report errors as ordinary text: a result whose text begins so is a tool error.
    """

    name: Name
    summary: str
    runtime: Runtime
    package: str
    version: str
    licence: str
    program: str
    arguments: tuple[str, ...] = ()
    env: dict[EnvName, str] = Field(default_factory=dict)
    options: tuple[EnvName, ...] = ()
    tools: tuple[str, ...]
    canary: Canary
    needs: Needs = Needs()
    isolation: Isolation = Isolation.SHARED
    state: State = State.NONE
    concurrency: int = Field(default=8, ge=1, le=256)
    start_seconds: int = Field(default=30, ge=1, le=300)
    failure: str = ""
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = set(self.tools)
        if len(known) != len(self.tools):
            raise ValueError("tools has a name twice")
        named = {self.canary.tool, *(tool for secret in self.needs.secrets for tool in secret.tools)}
        named |= set(self.needs.internet) - {"*"}
        named |= set(self.needs.program.tools if self.needs.program else ()) - {"*"}
        if unknown := sorted(named - known):
            raise ValueError(f"not among tools: {', '.join(unknown)}")
        if self.state is not State.NONE and self.isolation is Isolation.SHARED:
            raise ValueError("a server with state is isolated per session")
        return self

    @field_validator("failure")
    @classmethod
    def _is_pattern(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return pattern

    def failed(self, text: str) -> bool:
        """Whether a result with this text is an error that the server does not call one."""
        return bool(self.failure) and re.match(self.failure, text) is not None

    def needs_internet(self, tool: str) -> bool:
        """Whether the tool reaches out of the cluster."""
        return "*" in self.needs.internet or tool in self.needs.internet

    def needs_program(self, tool: str) -> Program | None:
        """The program that the tool can't do without."""
        program = self.needs.program
        return program if program and ("*" in program.tools or tool in program.tools) else None

    def secrets_of(self, tool: str) -> tuple[Secret, ...]:
        """The secrets that the tool can't do without."""
        return tuple(s for s in self.needs.secrets if s.required and (not s.tools or tool in s.tools))
