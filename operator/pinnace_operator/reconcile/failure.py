"""Why a pod failed, in the words of the closed list, with what to do about it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from types import MappingProxyType

from pinnace_operator.api.conditions import Reason, explain
from pinnace_operator.api.outcome import ExitCode
from pinnace_operator.api.status import LastFailure
from pinnace_operator.reconcile import clock
from pinnace_operator.reconcile.plan import Raw
from pinnace_operator.reconcile.pods import SIGKILL, SIGTERM, End, Pod

_LOG_TAIL = 4096
_MESSAGE = 4096
_NODE_LOST = {"DeletionByPodGC", "DeletionByTaintManager", "NodeLost"}


def latest(
    pods: Iterable[Pod],
    spec: Raw,
    crashed: Callable[[str], Reason],
    remedies: Mapping[Reason, str] = MappingProxyType({}),
    *,
    peers: bool = False,
) -> LastFailure | None:
    """The failure that explains the newest failed attempt, or None.

    In a gang one failure makes others: peers lose their connection, or are killed when the attempt ends. So permanent
    failures come first, then what pods say of themselves or the kernel did to them, then the earliest. Pods that are
    repeated one by one (`peers`) fail each for itself: after permanent failures, the newest explains most.

    Args:
        pods: of all attempts that are still visible.
        spec: the pods' template in the job's own spec (`trainer`), for limits and images in messages.
        crashed: by the container's name, the reason of an end that nobody foresaw.
        remedies: of the kind, where the reasons' own are not what helps.
    """
    found = [each for pod in pods for each in _of(pod, spec, crashed, remedies)]
    if not found:
        return None
    if peers:
        _, _, failure = max(found, key=lambda each: (each[1] == 0, each[2].time, each[2].pod))
        return failure
    newest = max(restart for restart, _, _ in found)
    _, _, failure = min(
        (each for each in found if each[0] == newest), key=lambda each: (each[1], each[2].time, each[2].pod)
    )
    return failure


def _of(
    pod: Pod, spec: Raw, crashed: Callable[[str], Reason], remedies: Mapping[Reason, str]
) -> Iterator[tuple[int, int, LastFailure]]:
    """(restart, weight, failure): the lighter, the nearer to the cause."""
    disrupted = _disruption(pod)
    for end in pod.ends():
        if end.exit_code in (0, ExitCode.CHECKPOINTED):
            continue
        if disrupted and end.exit_code in (SIGTERM, SIGKILL):
            continue  # the disruption says more than the signal
        if pod.deletion_time and not end.outcome and end.exit_code in (SIGTERM, SIGKILL):
            continue  # killed because the pod was deleted: a consequence, not a cause
        weight, reason, fact = _classify(end, spec, crashed)
        yield pod.restart, weight, _failure(pod, end, reason, explained(reason, fact, remedies.get(reason)))
    if disrupted:
        yield pod.restart, 1, disrupted


def _classify(end: End, spec: Raw, crashed: Callable[[str], Reason]) -> tuple[int, Reason, str]:
    outcome = end.outcome
    code = _known(end.exit_code)
    if code and code.permanent:
        return 0, code.reason, outcome.message if outcome and outcome.message else ""
    if end.reason == "OOMKilled":
        limit = (((end.spec or spec).get("resources") or {}).get("limits") or {}).get("memory")
        allowed = f"its memory limit of {limit}" if limit else "the node's memory (it has no memory limit)"
        return 1, Reason.OUT_OF_MEMORY, f"Container {end.container} was killed because it used more than {allowed}"
    if outcome:
        reason = outcome.reason
        return (3 if reason is Reason.RENDEZVOUS_FAILED else 2), reason, outcome.message
    if end.reason in ("ContainerCannotRun", "StartError"):
        return 1, Reason.POD_CONFIG_INVALID, f"Container {end.container} could not start: {end.message.strip()}"
    name = _signal(end)
    how = f"was ended by {name} (exit code {end.exit_code})" if name else f"ended with exit code {end.exit_code}"
    return 4, crashed(end.container), f"Container {end.container} {how} and left no message"


def _disruption(pod: Pod) -> LastFailure | None:
    """Somebody took the pod away: the node, the scheduler, an administrator."""
    condition = pod.condition("DisruptionTarget") or {}
    reason = str(condition.get("reason") or pod.status.get("reason") or "")
    if reason in _NODE_LOST:
        why = Reason.NODE_LOST
    elif condition or reason in ("Evicted", "Preempting", "Shutdown", "Terminated", "NodeShutdown"):
        why = Reason.EVICTED
    else:
        return None
    text = str(condition.get("message") or pod.status.get("message") or "").strip()
    fact = f"Pod {pod.name} was taken from its node ({reason}{': ' + text if text else ''})"
    time = clock.parse(condition.get("lastTransitionTime")) or pod.deletion_time or _start(pod)
    return LastFailure(
        pod=pod.name, container="", reason=why, message=explain(why, fact)[:_MESSAGE], time=time or clock.oldest()
    )


def _failure(pod: Pod, end: End, reason: Reason, message: str) -> LastFailure:
    outcome = end.outcome
    tail = outcome.log_tail if outcome else end.message
    return LastFailure(
        pod=pod.name,
        container=end.container,
        exit_code=end.exit_code if -1 <= end.exit_code <= 255 else None,
        reason=reason,
        message=message[:_MESSAGE],
        log_tail=tail[-_LOG_TAIL:],
        time=end.time or _start(pod) or clock.oldest(),
    )


def explained(reason: Reason, fact: str, remedy: str | None = None) -> str:
    """The fact with the reason's remedy, unless the pod's own message (which is more exact) names one already."""
    return fact if "emedy:" in fact else explain(reason, fact, remedy=remedy)


def _start(pod: Pod) -> datetime | None:
    return clock.parse(pod.status.get("startTime")) or clock.parse(pod.raw["metadata"].get("creationTimestamp"))


def _known(code: int) -> ExitCode | None:
    with suppress(ValueError):
        return ExitCode(code)
    return None


def _signal(end: End) -> str | None:
    number = end.signal or (end.exit_code - 128 if end.exit_code > 128 else 0)
    with suppress(ValueError):
        return signal.Signals(number).name
    return None
