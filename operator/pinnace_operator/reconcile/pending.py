"""Why pods don't run, from what the scheduler, the kubelet, the Job controller and Kueue say about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from pinnace_operator.api.conditions import Reason, explain
from pinnace_operator.reconcile import clock
from pinnace_operator.reconcile.plan import Raw
from pinnace_operator.reconcile.pods import Pod

PATIENCE_SECONDS = 300
"""How long an unschedulable pod may be a matter of an autoscaler before it is one of a person."""

IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"}


@dataclass(frozen=True)
class Wait:
    """What the pods wait for. `stalled`: not without a person."""

    reason: Reason
    message: str
    stalled: bool = False
    requeue_after: int | None = None


def explain_wait(
    pods: Sequence[Pod], warnings: Sequence[Raw], now: datetime, remedies: Mapping[Reason, str] = MappingProxyType({})
) -> Wait:
    """The most telling reason why not all pods run; `remedies` are the kind's, where they are not the usual ones."""
    for look in (_image, _configuration):
        for pod in pods:
            found = look(pod, warnings)
            if found:
                return found
    for pod in pods:
        found = _unschedulable(pod, now, remedies.get(Reason.UNSCHEDULABLE))
        if found:
            return found
    if not pods:
        return _no_pods(warnings)
    ready = sum(1 for pod in pods if pod.status.get("phase") == "Running")
    checking = [pod.name for pod in pods if pod.runs_init()]
    if checking:
        return Wait(Reason.STARTING, f"Checking storage, model and data in {len(checking)} of {len(pods)} pods.")
    return Wait(Reason.STARTING, f"{ready} of {len(pods)} pods run; the others are being started.")


def queued(workload: Raw | None, queue: str) -> str:
    """What Kueue says about a job that it holds back."""
    for condition in ((workload or {}).get("status") or {}).get("conditions") or ():
        if condition.get("type") == "QuotaReserved" and condition.get("status") == "False":
            return f"Queue {queue} has not admitted the job: {condition.get('message', '').strip()}"
    return f"Queue {queue} has not admitted the job yet."


def evicted(workload: Raw | None) -> str | None:
    """Why Kueue took a running job's quota back; None when it did not."""
    for condition in ((workload or {}).get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Evicted" and condition.get("status") == "True":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
    return None


def refused(error: str) -> Wait:
    """The API server refused the JobSet itself."""
    # RBAC's own words; quota, Pod Security and policies are refusals of the object, not of the operator.
    if "cannot " in error and "resource" in error:
        return Wait(Reason.PERMISSION_DENIED, explain(Reason.PERMISSION_DENIED, error), stalled=True)
    return Wait(Reason.POD_REJECTED, explain(Reason.POD_REJECTED, error), stalled=True)


def _image(pod: Pod, warnings: Sequence[Raw]) -> Wait | None:
    for container, waiting in pod.waiting():
        if waiting.get("reason") in IMAGE:
            said = event_about(warnings, pod, "Failed") or str(waiting.get("message", ""))
            fact = f"Pod {pod.name} can't get the image {container.get('image', '')} ({waiting['reason']}): {said}"
            return Wait(Reason.IMAGE_PULL_FAILED, explain(Reason.IMAGE_PULL_FAILED, fact), stalled=True)
    return None


def _configuration(pod: Pod, warnings: Sequence[Raw]) -> Wait | None:
    for container, waiting in pod.waiting():
        if waiting.get("reason") in CONFIG:
            fact = f"Container {container.get('name', '')} of pod {pod.name} can't start: {waiting.get('message', '')}"
            return Wait(Reason.POD_CONFIG_INVALID, explain(Reason.POD_CONFIG_INVALID, fact), stalled=True)
    mount = event_about(warnings, pod, "FailedMount")
    if mount and pod.status.get("phase") == "Pending" and "not found" in mount:
        fact = f"Pod {pod.name} can't start: {mount}"
        return Wait(Reason.POD_CONFIG_INVALID, explain(Reason.POD_CONFIG_INVALID, fact), stalled=True)
    return None


def _unschedulable(pod: Pod, now: datetime, remedy: str | None) -> Wait | None:
    condition = pod.condition("PodScheduled", "False")
    if not condition or condition.get("reason") != "Unschedulable":
        return None
    left = clock.remaining(clock.parse(condition.get("lastTransitionTime")), PATIENCE_SECONDS, now)
    fact = f"No node fits pod {pod.name}: {str(condition.get('message', '')).strip()}"
    return Wait(
        Reason.UNSCHEDULABLE, explain(Reason.UNSCHEDULABLE, fact, remedy=remedy), stalled=left == 0,
        requeue_after=left or None,
    )  # fmt: skip


def _no_pods(warnings: Sequence[Raw]) -> Wait:
    for event in reversed(_by_time(warnings)):
        if event.get("reason") in ("FailedCreate", "JobCreationFailed", "HeadlessServiceCreationFailed"):
            fact = f"The job's pods are refused: {event.get('message', '')}"
            return Wait(Reason.POD_REJECTED, explain(Reason.POD_REJECTED, fact), stalled=True)
    return Wait(Reason.STARTING, "The pods are being created.")


def event_about(warnings: Sequence[Raw], pod: Pod, reason: str) -> str | None:
    """The newest message of that reason about the pod."""
    about = [
        each
        for each in warnings
        if each.get("reason") == reason and (each.get("involvedObject") or {}).get("name") == pod.name
    ]
    return str(_by_time(about)[-1].get("message", "")) if about else None


def _by_time(events: Sequence[Raw]) -> list[Raw]:
    return sorted(events, key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""))
