"""The gateway's pods: how many there are, and whether they serve and report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.toolgateway import AuthMode
from pinnace_operator.api.toolsandbox_status import GatewayStatus
from pinnace_operator.builders import gateway as builder
from pinnace_operator.builders.toolsandbox import GATEWAY
from pinnace_operator.reconcile import clock, trouble
from pinnace_operator.reconcile.plan import SecretRequest
from pinnace_operator.reconcile.sandbox import Sandbox, ready_pods
from pinnace_operator.reconcile.scale import Bounds, Size, resize
from pinnace_operator.reconcile.trouble import Trouble, told

SILENT_SECONDS = 30
"""Ready gateways that nobody has heard of for so long can't reach the operator."""
_KINDS = ("ConfigMap", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Deployment", "PodDisruptionBudget")


@dataclass(frozen=True, kw_only=True)
class View:
    """What is the case with the gateway, and what has to exist for it besides its configuration."""

    status: GatewayStatus
    deployment: dict[str, Any]
    trouble: Trouble | None
    silent: bool
    requeue_after: int | None


def look(sandbox: Sandbox) -> View:
    name = sandbox.names.gateway
    deployment = sandbox.deployment(name)
    pods = sandbox.pods(GATEWAY)
    ready = ready_pods(pods)
    size = _size(sandbox)
    secret_names = [each.name for each in secrets(sandbox)]
    objects = [*((kind, name) for kind in _KINDS), *(("Secret", each) for each in secret_names)]
    objects += [("Service", sandbox.names.service), ("NetworkPolicy", sandbox.names.default_policy)]
    found = trouble.of(sandbox, pods, deployment, objects, slow=Reason.UNAVAILABLE)
    left = _silent_in(sandbox) if ready and not sandbox.reports and not sandbox.spec.suspend else None
    reason, message = _reason(sandbox, ready, size, found, silent=left == 0)
    status = GatewayStatus(
        ready=ready, desired=size.replicas, reason=reason, message=message[:4096], last_busy_time=size.busy
    )
    waits = [left, trouble.next_look(pods, sandbox.now)]
    return View(
        status=status,
        deployment=builder.deployment(
            sandbox.identity, sandbox.spec, replicas=size.replicas, installation=sandbox.installation
        ),
        trouble=found,
        silent=left == 0,
        requeue_after=min((each for each in waits if each), default=None),
    )


def secrets(sandbox: Sandbox) -> tuple[SecretRequest, ...]:
    """The key between gateway and sandboxes; and a token for agents, if the spec names no Secret with some."""
    auth, names = sandbox.spec.gateway.auth, sandbox.names
    wanted = {names.keys: ("key",)}
    if auth.mode is AuthMode.TOKEN and auth.secret_name is None:
        wanted[names.tokens] = ("default",)
    return tuple(
        SecretRequest(
            name=name, keys=keys, labels=sandbox.identity.labels(GATEWAY),
            owner_reference=sandbox.identity.owner_reference(),
        )
        for name, keys in wanted.items()
    )  # fmt: skip


def _size(sandbox: Sandbox) -> Size:
    if sandbox.spec.suspend:
        return Size(replicas=0, busy=None)
    gateway, before = sandbox.spec.gateway, sandbox.before.gateway
    scale = gateway.scale
    if scale is None:
        return Size(replicas=gateway.replicas, busy=None)
    bounds = Bounds(
        low=scale.min_replicas, high=scale.max_replicas, target=scale.target_in_flight, cooldown=scale.cooldown_seconds
    )
    if before and before.desired:
        return resize(Size(replicas=before.desired, busy=before.last_busy_time), bounds, sandbox.all_calls, sandbox.now)
    first = min(max(gateway.replicas, scale.min_replicas), scale.max_replicas)
    return Size(replicas=first, busy=sandbox.now)


def _silent_in(sandbox: Sandbox) -> int:
    """Seconds until silence means something; 0 when it does."""
    heard = [each.received for each in sandbox.observed.loads]
    ready = [clock.parse((pod.condition("Ready") or {}).get("lastTransitionTime")) for pod in sandbox.pods(GATEWAY)]
    times = [each for each in (*heard, *ready, sandbox.observed.listening_since) if each]
    return clock.remaining(max(times), SILENT_SECONDS, sandbox.now) if times else SILENT_SECONDS


def _reason(
    sandbox: Sandbox, ready: int, size: Size, found: Trouble | None, *, silent: bool
) -> tuple[Reason, str]:  # fmt: skip
    if sandbox.spec.suspend:
        return Reason.SUSPENDED, "spec.suspend is true."
    if found:
        return found.reason, f"{ready} of {size.replicas} gateways serve. {found.message}"
    if silent:
        return Reason.GATEWAY_SILENT, told(Reason.GATEWAY_SILENT)
    if ready >= size.replicas:
        return Reason.AVAILABLE, f"{ready} gateways serve."
    reason = Reason.SCALING if ready else Reason.STARTING
    return reason, f"{ready} of {size.replicas} gateways serve; the others are being started."
