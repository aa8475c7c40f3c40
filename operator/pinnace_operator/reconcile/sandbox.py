"""One ToolSandbox with all that is known about it: what every part of the decision looks at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from pinnace_operator.api.load import LoadReport, ServerLoad
from pinnace_operator.api.toolsandbox import ToolSandboxSpec
from pinnace_operator.api.toolsandbox_status import ServerStatus, ToolSandboxStatus
from pinnace_operator.builders.identity import ROLE, Identity
from pinnace_operator.builders.toolsandbox import GATEWAY, Installation, Names
from pinnace_operator.reconcile import clock
from pinnace_operator.reconcile.plan import Observed, Raw, Refusal
from pinnace_operator.reconcile.pods import Pod

FRESH_SECONDS = 10
"""Gateways report every second; one that has been silent for so long says nothing about now."""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A resource with its facts, read once."""

    identity: Identity
    spec: ToolSandboxSpec
    before: ToolSandboxStatus
    observed: Observed

    @property
    def now(self) -> datetime:
        return self.observed.now

    @property
    def names(self) -> Names:
        return Names(self.identity.name)

    @cached_property
    def installation(self) -> Installation:
        settings = self.observed.settings
        defaults = settings.storage
        return Installation(
            tools_image=f"{settings.image_registry}/pinnace/tools:{settings.image_tag}",
            pull_policy=settings.image_pull_policy,
            progress_url=settings.progress_url,
            progress_ca=settings.progress_ca,
            storage_defaults={
                "endpoint": defaults.endpoint,
                "bucket": defaults.bucket,
                "prefix": defaults.prefix,
                "region": defaults.region,
            },
            gateway_egress_ports=settings.gateway_egress_ports,
        )

    # -- children ------------------------------------------------------------------------------------------------------
    @cached_property
    def children(self) -> Mapping[tuple[str, str], Raw]:
        """What this ToolSandbox owns, by kind and name."""
        uid = self.identity.uid
        return {
            (str(each["kind"]), str(each["metadata"]["name"])): each
            for each in self.observed.children
            if any(
                owner.get("controller") and owner.get("uid") == uid
                for owner in each["metadata"].get("ownerReferences") or ()
            )
        }

    def deployment(self, name: str) -> Raw | None:
        return self.children.get(("Deployment", name))

    def refusals(self, *objects: tuple[str, str]) -> list[Refusal]:
        """Of those objects, by kind and name."""
        return [self.observed.refused[each] for each in objects if each in self.observed.refused]

    def server_before(self, server: str, version: str) -> ServerStatus | None:
        return next((each for each in self.before.servers if (each.name, each.version) == (server, version)), None)

    # -- pods ----------------------------------------------------------------------------------------------------------
    @cached_property
    def _pods(self) -> tuple[Pod, ...]:
        return tuple(Pod(each) for each in self.observed.pods)

    def pods(self, role: str, **labels: str) -> list[Pod]:
        """That have not ended, by role and more labels (`server`, `version`)."""
        wanted = {ROLE: role, **{f"pinnace.dev/{name}": value for name, value in labels.items()}}
        return [pod for pod in self._pods if not pod.ended and wanted.items() <= pod.labels.items()]

    # -- reports -------------------------------------------------------------------------------------------------------
    @cached_property
    def reports(self) -> Mapping[str, LoadReport]:
        """Fresh reports of gateways that still run, by pod."""
        alive = {pod.name for pod in self.pods(GATEWAY)}
        return {
            each.report.pod: each.report
            for each in self.observed.loads
            if each.report.pod in alive and clock.seconds_since(each.received, self.now) < FRESH_SECONDS
        }

    def server_loads(self, server: str, version: str) -> list[ServerLoad]:
        """What each gateway says about a version; nothing when none knows it."""
        every = (load for report in self.reports.values() for load in report.servers)
        return [load for load in every if (load.name, load.version) == (server, version)]

    def calls(self, server: str, version: str) -> int | None:
        """Calls under way and waiting; None when no gateway reports."""
        return sum(load.calls for load in self.server_loads(server, version)) if self.reports else None

    @property
    def all_calls(self) -> int | None:
        """Of all servers."""
        if not self.reports:
            return None
        return sum(load.calls for report in self.reports.values() for load in report.servers)

    def routes_to(self, server: str, version: str) -> bool:
        """Whether a gateway may still send calls to a version that left the spec, or waits for answers of it.

        A gateway that serves must have said that the present configuration is in force; one that starts can serve
        nothing before it has read it.
        """
        return any(self._may_route(pod, server, version) for pod in self.pods(GATEWAY))

    def _may_route(self, gateway: Pod, server: str, version: str) -> bool:
        report = self.reports.get(gateway.name)
        if report is None:
            return gateway.ready or gateway.deleting
        loads = [each for each in report.servers if (each.name, each.version) == (server, version)]
        return report.generation < self.identity.generation or any(each.calls for each in loads)


def ready_pods(pods: Iterable[Pod]) -> int:
    return sum(pod.ready and not pod.deleting for pod in pods)
