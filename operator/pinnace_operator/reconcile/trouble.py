"""Why the pods of a service don't serve, in the words of the closed list, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pinnace_operator.api.conditions import Reason, explain
from pinnace_operator.api.outcome import Outcome
from pinnace_operator.builders.sessions import SANDBOX
from pinnace_operator.reconcile import clock
from pinnace_operator.reconcile.pending import CONFIG, IMAGE, PATIENCE_SECONDS, event_about
from pinnace_operator.reconcile.plan import Raw, Refusal
from pinnace_operator.reconcile.pods import Pod
from pinnace_operator.reconcile.sandbox import Sandbox

SLOW_SECONDS = 60
"""A process that is not ready so long after its start is taken for one that never will be."""
_RESTARTS = 3
_SAID = 1000
_TYPED = ("UnknownCatalogueServer: ", "UnknownServer: ", "InvalidEntry: ", "NotInstalled: ")
"""Errors of `pinnace tools serve` that a log's last lines may begin with; they name what is wrong and hold no value."""

REMEDIES = {
    Reason.IMAGE_PULL_FAILED: "check the image's name, and that spec.imagePullSecrets may read it",
    Reason.UNSCHEDULABLE: "lower the resources in the spec, or add a node",
    Reason.POD_CONFIG_INVALID: "create the Secret or key that is missing; the pods start by themselves then",
    Reason.OUT_OF_MEMORY: "raise resources.limits.memory in the spec",
    Reason.CHILD_CONFLICT: "delete or rename that object, or give the ToolSandbox another name",
    Reason.INVALID_SPEC: "correct the field that the message names; what was served before goes on meanwhile",
}
"""What to change in a ToolSandbox; other reasons have one remedy for all kinds."""


@dataclass(frozen=True)
class Trouble:
    """What keeps pods from serving. `stalled`: not without a person."""

    reason: Reason
    message: str
    stalled: bool = True


def told(reason: Reason, fact: str = "") -> str:
    """A message with the remedy that fits a ToolSandbox."""
    return explain(reason, fact, remedy=REMEDIES.get(reason))


def of(
    sandbox: Sandbox, pods: Iterable[Pod], deployment: Raw | None, objects: Iterable[tuple[str, str]], *, slow: Reason
) -> Trouble | None:
    """What keeps one part of a ToolSandbox from serving; nothing does while nothing is meant to.

    Args:
        pods: of that part.
        objects: kinds and names of its children.
        slow: the reason when a process runs but does not become ready.
    """
    if sandbox.spec.suspend:
        return None
    return refused(sandbox.refusals(*objects)) or of_pods(
        pods, deployment, sandbox.observed.warnings, sandbox.now, slow=slow
    )


def refused(refusals: Sequence[Refusal]) -> Trouble | None:
    """The API server (or an object in the way) refused a child."""
    if not refusals:
        return None
    worst = min(refusals, key=lambda each: each.passing)
    if worst.passing:
        return Trouble(Reason.STARTING, worst.message, stalled=False)
    if worst.conflict:
        return Trouble(Reason.CHILD_CONFLICT, told(Reason.CHILD_CONFLICT, worst.message))
    # RBAC's own words; everything else is a refusal of the object, not of the operator.
    denied = ("cannot " in worst.message and "resource" in worst.message) or "attempting to grant" in worst.message
    reason = Reason.PERMISSION_DENIED if denied else Reason.POD_REJECTED
    return Trouble(reason, told(reason, worst.message))


def of_pods(
    pods: Iterable[Pod], deployment: Raw | None, warnings: Sequence[Raw], now: datetime, *, slow: Reason
) -> Trouble | None:
    """The most telling reason why some pods are not ready; None when all are, or just start."""
    waiting = [pod for pod in pods if not pod.ready and not pod.deleting]
    for look in (_image, _configuration, _crash, _unschedulable):
        for pod in waiting:
            found = look(pod, warnings, now)
            if found:
                return found
    return _rejected(deployment) or next(filter(None, (_slow(pod, now, slow) for pod in waiting)), None)


def next_look(pods: Iterable[Pod], now: datetime) -> int | None:
    """Seconds until time alone makes trouble of a pod that starts."""
    starts = [since for pod in pods if not pod.ready for since in (_unready_since(pod),) if since]
    left = [clock.remaining(since, SLOW_SECONDS, now) for since in starts]
    return min((each for each in left if each), default=None)


def _image(pod: Pod, _warnings: Sequence[Raw], _now: datetime) -> Trouble | None:
    for container, state in pod.waiting():
        if state.get("reason") in IMAGE:
            what = f"Pod {pod.name} can't get the image {container.get('image', '')} ({state['reason']})"
            fact = f"{what}: {state.get('message', '')}".rstrip(": ")
            return Trouble(Reason.IMAGE_PULL_FAILED, told(Reason.IMAGE_PULL_FAILED, fact))
    return None


def _configuration(pod: Pod, warnings: Sequence[Raw], _now: datetime) -> Trouble | None:
    for container, state in pod.waiting():
        if state.get("reason") in CONFIG:
            fact = f"Container {container.get('name', '')} of pod {pod.name} can't start: {state.get('message', '')}"
            return Trouble(Reason.POD_CONFIG_INVALID, told(Reason.POD_CONFIG_INVALID, fact))
    mount = event_about(warnings, pod, "FailedMount") if pod.status.get("phase") == "Pending" else None
    if mount and "not found" in mount:
        fact = f"Pod {pod.name} can't start: {mount}"
        return Trouble(Reason.POD_CONFIG_INVALID, told(Reason.POD_CONFIG_INVALID, fact))
    return None


def _crash(pod: Pod, _warnings: Sequence[Raw], _now: datetime) -> Trouble | None:
    for container in pod.containers():
        waiting = (container.get("state") or {}).get("waiting") or {}
        restarts = int(container.get("restartCount") or 0)
        looping = waiting.get("reason") == "CrashLoopBackOff" or (restarts >= _RESTARTS and not container.get("ready"))
        if looping:
            ended = (container.get("lastState") or {}).get("terminated") or {}
            return _crashed(pod, container, ended, restarts)
    return None


def _crashed(pod: Pod, container: Raw, ended: Raw, restarts: int) -> Trouble:
    where = f"Container {container.get('name', '')} of pod {pod.name} ended {restarts} times"
    if ended.get("reason") == "OOMKilled":
        fact = f"{where}, last because it used more than its memory limit"
        return Trouble(Reason.OUT_OF_MEMORY, told(Reason.OUT_OF_MEMORY, fact))
    # The code in a sandbox can write its container's message.
    said = "" if container.get("name") == SANDBOX else _last_words(str(ended.get("message", "")))
    fact = f"{where}, last with exit code {ended.get('exitCode', 'unknown')}" + (f": {said}" if said else "")
    # Our own processes name their remedy; it is better than the general one.
    message = fact if "emedy:" in fact else told(Reason.CRASH_LOOP, fact)
    return Trouble(Reason.CRASH_LOOP, message)


def _last_words(message: str) -> str:
    """What one of our processes said at its end. Logs of others are not repeated: they may hold what is secret."""
    outcome = Outcome.parse(message)
    if outcome:
        return outcome.message[:_SAID]
    typed = [line for line in message.splitlines() if line.startswith(_TYPED)]
    return typed[-1][:_SAID] if typed else ""


def _unschedulable(pod: Pod, _warnings: Sequence[Raw], now: datetime) -> Trouble | None:
    condition = pod.condition("PodScheduled", "False")
    if not condition or condition.get("reason") != "Unschedulable":
        return None
    # A cluster autoscaler may be at work.
    left = clock.remaining(clock.parse(condition.get("lastTransitionTime")), PATIENCE_SECONDS, now)
    fact = f"No node fits pod {pod.name}: {str(condition.get('message', '')).strip()}"
    return Trouble(Reason.UNSCHEDULABLE, told(Reason.UNSCHEDULABLE, fact), stalled=left == 0)


def _rejected(deployment: Raw | None) -> Trouble | None:
    """The ReplicaSet controller may not create pods: quota, Pod Security, a policy."""
    for condition in ((deployment or {}).get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            fact = f"Pods are refused: {condition.get('message', '')}"
            return Trouble(Reason.POD_REJECTED, told(Reason.POD_REJECTED, fact))
    return None


def _slow(pod: Pod, now: datetime, reason: Reason) -> Trouble | None:
    since = _unready_since(pod)
    if since is None or clock.remaining(since, SLOW_SECONDS, now):
        return None
    fact = f"Pod {pod.name} runs, but has not been ready for more than {SLOW_SECONDS} s"
    return Trouble(reason, told(reason, fact))


def _unready_since(pod: Pod) -> datetime | None:
    """Since when all containers run and the pod could be ready, but is not; None when one does not run."""
    unready = [each for each in pod.containers() if not each.get("ready")]
    started = [clock.parse(((each.get("state") or {}).get("running") or {}).get("startedAt")) for each in unready]
    known = [time for time in started if time]
    if not known or len(known) < len(started):
        return None
    changed = clock.parse((pod.condition("Ready", "False") or {}).get("lastTransitionTime"))
    return max([*known, *([changed] if changed else [])])
