"""Reading pods: which attempt they belong to, what their containers do, and what they said at their end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from pinnace_operator.api.outcome import Outcome
from pinnace_operator.builders.environment import RESTART_LABEL
from pinnace_operator.reconcile import clock
from pinnace_operator.reconcile.jobset import JobSet
from pinnace_operator.reconcile.plan import Raw

JOBSET_UID = "jobset.sigs.k8s.io/jobset-uid"
RANK = "batch.kubernetes.io/job-completion-index"
SIGTERM, SIGKILL = 143, 137


@dataclass(frozen=True)
class End:
    """A container that has terminated."""

    pod: Pod
    container: str
    exit_code: int
    reason: str
    signal: int | None
    message: str
    time: datetime | None

    @property
    def spec(self) -> Raw:
        """The container as the pod has it; empty when that is not known."""
        all_ = (self.pod.raw.get("spec") or {}).get("containers") or ()
        return next((each for each in all_ if each.get("name") == self.container), {})

    @property
    def outcome(self) -> Outcome | None:
        """What the container said, if it is one of ours and had the time to speak."""
        return Outcome.parse(self.message)


@dataclass(frozen=True)
class Pod:
    """A view of the raw object."""

    raw: Raw

    @property
    def name(self) -> str:
        return str(self.raw["metadata"].get("name", ""))

    @property
    def labels(self) -> Raw:
        return self.raw["metadata"].get("labels") or {}

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"].get("uid", ""))

    @property
    def status(self) -> Raw:
        return self.raw.get("status") or {}

    @property
    def rank(self) -> int:
        text = str(self.labels.get(RANK, "0"))
        return int(text) if text.isdecimal() else 0

    @property
    def restart(self) -> int:
        text = str(self.labels.get(RESTART_LABEL, "0"))
        return int(text) if text.isdecimal() else 0

    @property
    def deletion_time(self) -> datetime | None:
        return clock.parse(self.raw["metadata"].get("deletionTimestamp"))

    @property
    def deleting(self) -> bool:
        return bool(self.raw["metadata"].get("deletionTimestamp"))

    @property
    def ended(self) -> bool:
        """Its containers are gone for good."""
        return self.status.get("phase") in ("Succeeded", "Failed")

    def of(self, jobset: JobSet) -> bool:
        """Of that JobSet's present attempt."""
        return self.labels.get(JOBSET_UID) == jobset.uid and self.restart == jobset.restarts

    def condition(self, type_: str, status: str = "True") -> Raw | None:
        conditions = self.status.get("conditions") or ()
        return next((each for each in conditions if each.get("type") == type_ and each.get("status") == status), None)

    @property
    def ready(self) -> bool:
        """It gets traffic."""
        return self.condition("Ready") is not None

    def at_work(self, container: str) -> bool:
        """That container runs or has ended well; the pod's phase follows a moment later."""
        states = (
            each.get("state") or {}
            for each in self.status.get("containerStatuses") or ()
            if each.get("name") == container
        )
        return any("running" in each or (each.get("terminated") or {}).get("exitCode") == 0 for each in states)

    def runs_init(self) -> bool:
        """Whether it is still at its checks."""
        return any("running" in (each.get("state") or {}) for each in self.status.get("initContainerStatuses") or ())

    def waiting(self) -> Iterator[tuple[Raw, Raw]]:
        """(container status, waiting state) of containers that can't start."""
        for each in self.containers():
            waiting = (each.get("state") or {}).get("waiting")
            if waiting:
                yield each, waiting

    def containers(self) -> Iterator[Raw]:
        yield from self.status.get("initContainerStatuses") or ()
        yield from self.status.get("containerStatuses") or ()

    def ends(self) -> Iterator[End]:
        for each in self.containers():
            ended = (each.get("state") or {}).get("terminated")
            if ended:
                yield End(
                    pod=self,
                    container=str(each.get("name", "")),
                    exit_code=int(ended.get("exitCode", 0)),
                    reason=str(ended.get("reason", "")),
                    signal=ended.get("signal"),
                    message=str(ended.get("message", "")),
                    time=clock.parse(ended.get("finishedAt")),
                )


def read(raws: Iterable[Raw]) -> tuple[Pod, ...]:
    """In the order of attempt, rank and name, whatever order they were listed in."""
    return tuple(sorted((Pod(each) for each in raws), key=lambda pod: (pod.restart, pod.rank, pod.name)))


def outcomes(pods: Iterable[Pod]) -> list[tuple[End, Outcome]]:
    """What pods said at their end, oldest first."""
    said = [(end, end.outcome) for pod in pods for end in pod.ends()]
    known = [(end, outcome) for end, outcome in said if outcome is not None]
    return sorted(known, key=lambda each: each[0].time or clock.oldest())
