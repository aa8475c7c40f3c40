"""Sessions of a ToolSandbox: the sandboxes that trajectories lease, and the pool that is kept warm for them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, Rule
from pinnace_operator.api.cataloguenames import CatalogueName
from pinnace_operator.api.fields import ObjectName, whole
from pinnace_operator.api.pod import Resources
from pinnace_operator.api.toolserver import Egress

SandboxServer = Literal["python", "shell", "files", CatalogueName]
BUILT_IN: tuple[SandboxServer, ...] = ("python", "shell", "files")
"""What every sandbox can run. `files` are its own file tools, not the catalogue's server of that name."""


class Recycle(StrEnum):
    """What happens to a sandbox when its lease ends."""

    DELETE = "Delete"
    RESTART = "Restart"
    NOOP = "Noop"


class Sessions(ApiModel):
    """A pool of sandboxes. Each trajectory leases one: a workspace and interpreters of its own, without network."""

    warm: Annotated[int, whole(0, 1000)] = 4
    """Free sandboxes to keep ready (`kubectl scale` sets this). They are in addition to those that are leased.

    0: none; the first lease is held until one is ready, at most `gateway.maxQueueSeconds`."""
    max: Annotated[int, whole(1, 5000)] = 64
    """Most sandboxes, leased and free."""
    idle_seconds: Annotated[int, whole(1, 604_800)] = 600
    """A lease ends when it was not used for so long."""
    hard_seconds: Annotated[int, whole(1, 604_800)] = 7200
    """A lease ends at this age, used or not."""
    recycle: Recycle = Recycle.RESTART
    """After a lease: Restart ends every process and empties the workspace, Delete replaces the pod, Noop nothing."""
    servers: Annotated[tuple[SandboxServer, ...], Field(max_length=16), ListType("set")] = BUILT_IN
    """What runs in every sandbox: python, shell, files (its own file tools), and servers of the catalogue."""
    resources: Resources | None = None
    """Of the container that runs untrusted code.

    Absent: 50m CPU and 128Mi reserved, at most one CPU and 768Mi besides the workspace."""
    egress: Egress = ()
    """Networks that untrusted code may reach; absent: none, not even DNS."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, such as `gvisor`."""
    workspace_mi_b: Annotated[int, whole(8, 65_536)] = Field(default=256, alias="workspaceMiB")
    """Size of a workspace in MiB. It is memory, and counts against the container's limit."""

    rules = (
        Rule(
            "self.warm <= self.max",
            "sessions.warm: it can't be above sessions.max: lower it or raise max",
            lambda sessions: sessions.warm <= sessions.max,
            field=".warm",
        ),
        Rule(
            "self.idleSeconds <= self.hardSeconds",
            "sessions.idleSeconds: it can't be above hardSeconds: lower it or raise hardSeconds",
            lambda sessions: sessions.idle_seconds <= sessions.hard_seconds,
            field=".idleSeconds",
        ),
    )
