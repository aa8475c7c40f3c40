"""The pool of sandboxes: as many free ones as the spec wants besides the leased ones, and none that is worn out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.toolsandbox_status import SessionsStatus
from pinnace_operator.api.toolsessions import Sessions
from pinnace_operator.builders import sessions as builder
from pinnace_operator.builders.toolsandbox import SESSION
from pinnace_operator.reconcile import clock, trouble
from pinnace_operator.reconcile.plan import Prune, Raw
from pinnace_operator.reconcile.pods import Pod
from pinnace_operator.reconcile.sandbox import Sandbox, ready_pods
from pinnace_operator.reconcile.scale import Size, touched
from pinnace_operator.reconcile.trouble import Trouble

SHRINK_SECONDS = 30
"""The pool gets smaller when nothing was leased for so long: pauses between two batches must not empty it."""
SPENT_SECONDS = 15
"""An agent that was ready once and is unready for so long has done its work (recycle: Delete) or hangs."""

STARTING_SECONDS = 60
"""A sandbox whose agent runs and that is not ready after so long hangs."""

_RESTARTS = 3


@dataclass(frozen=True, kw_only=True)
class View:
    """What is the case with the pool, and what has to exist for it."""

    status: SessionsStatus
    children: tuple[dict[str, Any], ...]
    prune: tuple[Prune, ...]
    trouble: Trouble | None
    requeue_after: int | None


def look(sandbox: Sandbox, sessions: Sessions) -> View:
    name = sandbox.names.session
    deployment = sandbox.deployment(name)
    pods = sandbox.pods(SESSION)
    ready = ready_pods(pods)
    loads = [each.sessions for each in sandbox.reports.values() if each.sessions]
    before = sandbox.before.sessions
    armed = max(each.armed for each in loads) if loads else (before.armed if before else 0)
    armed = 0 if sandbox.spec.suspend else armed
    free = max(sessions.warm, sum(each.wanted for each in loads))
    size = _size(sandbox, armed, min(sessions.max, armed + free), heard=bool(loads))
    spent = {pod for each in loads for pod in each.spent}
    worn, soon = _worn_out(sandbox, pods, spent)
    objects = [(kind, name) for kind in ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget")]
    starting = [pod for pod in pods if not _was_ready(pod)]
    found = trouble.of(sandbox, starting, deployment, objects, slow=Reason.UNAVAILABLE)
    reason, message = _reason(sandbox, size, ready, found)
    status = SessionsStatus(
        free=max(0, ready - armed),
        armed=armed,
        warm=0 if sandbox.spec.suspend else min(sessions.warm, sessions.max),
        desired=size.replicas,
        in_use=f"{armed}/{sessions.max}",
        reason=reason,
        message=message[:4096],
        last_busy_time=size.busy,
    )
    children = (
        builder.service(sandbox.identity),
        builder.deployment(
            sandbox.identity, sandbox.spec, sessions, replicas=size.replicas, installation=sandbox.installation
        ),
    )
    waits = [soon, trouble.next_look(pods, sandbox.now), _shrinks_in(sandbox, size, sessions, armed)]
    return View(
        status=status,
        children=children,
        prune=worn,
        trouble=found,
        requeue_after=min((each for each in waits if each), default=None),
    )


def _size(sandbox: Sandbox, armed: int, wanted: int, *, heard: bool) -> Size:
    """Grows at once. Shrinks only while nothing is leased: a ReplicaSet does not know which of its pods are."""
    if sandbox.spec.suspend:
        return Size(replicas=0, busy=None)
    before = sandbox.before.sessions
    current, busy = (before.desired, before.last_busy_time) if before else (0, None)
    if wanted > current:
        return Size(replicas=wanted, busy=sandbox.now)
    if armed or (before and before.armed):
        busy = touched(busy, sandbox.now, 4 * SHRINK_SECONDS)
    if wanted == current:
        return Size(replicas=current, busy=busy)
    unknown = not heard and sandbox.pods(SESSION)
    if busy and not armed and not unknown and not clock.remaining(busy, SHRINK_SECONDS, sandbox.now):
        return Size(replicas=wanted, busy=sandbox.now)
    return Size(replicas=current, busy=busy or sandbox.now)


def _shrinks_in(sandbox: Sandbox, size: Size, sessions: Sessions, armed: int) -> int | None:
    """Seconds until the pool may get smaller."""
    if armed or size.busy is None or size.replicas <= min(sessions.max, sessions.warm):
        return None
    return clock.remaining(size.busy, SHRINK_SECONDS, sandbox.now) or None


def _worn_out(sandbox: Sandbox, pods: list[Pod], spent: set[str]) -> tuple[tuple[Prune, ...], int | None]:
    """Pods to delete (the ReplicaSet replaces them), and seconds until one may be found to be."""
    gone, waits = [], []
    others_serve = ready_pods(pods) > 0
    for pod in pods:
        if pod.deleting:
            continue
        left = 0 if pod.name in spent else _worn_out_in(sandbox, pod, others_serve=others_serve)
        if left:
            waits.append(left)
        elif left == 0:
            gone.append(pod)
    prunes = tuple(
        Prune(api_version="v1", kind="Pod", name=pod.name, uid=pod.uid, propagation="Background") for pod in gone
    )
    return prunes, min(waits, default=None)


def _worn_out_in(sandbox: Sandbox, pod: Pod, *, others_serve: bool) -> int | None:
    """Seconds; 0 when it is, None when it is fine or starts.

    A pod that never gets ready is replaced when others of the same make do serve: then it is this one that is broken,
    and the kubelet's growing pauses between restarts would keep its place for minutes. When none serves, replacing
    them would only hide what is wrong.
    """
    if pod.ready:
        return None
    if _was_ready(pod):
        since = clock.parse((pod.condition("Ready", "False") or {}).get("lastTransitionTime"))
        return clock.remaining(since, SPENT_SECONDS, sandbox.now)
    if not others_serve:
        return None
    restarts = max((int(each.get("restartCount") or 0) for each in pod.containers()), default=0)
    if restarts >= _RESTARTS:
        return 0
    since = clock.parse((_agent(pod).get("state") or {}).get("running", {}).get("startedAt"))
    return clock.remaining(since, STARTING_SECONDS, sandbox.now) if since else None


def _was_ready(pod: Pod) -> bool:
    """Its agent runs, passed its start-up probe (the first success of /readyz), and is not ready now."""
    agent = _agent(pod)
    return agent.get("started") is True and not agent.get("ready") and "running" in (agent.get("state") or {})


def _agent(pod: Pod) -> Raw:
    """The status of its container; empty where there is none yet."""
    statuses = pod.status.get("containerStatuses") or ()
    return next((each for each in statuses if each.get("name") == builder.AGENT), {})


def _reason(sandbox: Sandbox, size: Size, ready: int, found: Trouble | None) -> tuple[Reason, str]:
    if sandbox.spec.suspend:
        return Reason.SUSPENDED, "spec.suspend is true."
    if found:
        return found.reason, f"{ready} of {size.replicas} sandboxes are ready. {found.message}"
    if size.replicas == 0:
        return Reason.AT_ZERO, "None is kept warm; the next lease starts one and is held meanwhile."
    if ready >= size.replicas:
        return Reason.AVAILABLE, f"{ready} sandboxes are ready."
    reason = Reason.SCALING if ready else Reason.STARTING
    return reason, f"{ready} of {size.replicas} sandboxes are ready; the others are being started."
