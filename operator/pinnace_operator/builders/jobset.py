"""The JobSet of a job: one gang, restarted as a whole, with rules for what is permanent and what is not counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pinnace_operator.api.outcome import PERMANENT_EXIT_CODES, ExitCode
from pinnace_operator.builders.identity import Identity

API_VERSION = "jobset.x-k8s.io/v1alpha2"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
FIRST_ATTEMPT = "pinnace.dev/first-attempt"
RESTARTS_BEFORE = "pinnace.dev/restarts-before"

# The Job controller writes these messages for pods that match a FailJob rule of the podFailurePolicy:
#   Container trainer for pod ns/p failed with exit code 85 matching FailJob rule at index 1
#   Pod ns/p has condition DisruptionTarget matching FailJob rule at index 2
# The JobSet controller tells failures apart by these texts only. A pod's name has no spaces, so it can't imitate them.
_CHECKPOINTED = f"failed with exit code {int(ExitCode.CHECKPOINTED)} matching"
_DISRUPTED = "has condition DisruptionTarget matching"
_PERMANENT = f"failed with exit code ({'|'.join(map(str, PERMANENT_EXIT_CODES))}) matching"
_BY_POLICY = ["PodFailurePolicy"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a JobSet knows of the attempts before it: it counts its own restarts from 0."""

    max_restarts: int
    """Failures that may still be followed by a restart."""
    first_attempt: int = 0
    """Number of its first attempt over the life of the job."""
    restarts_before: int = 0
    """Restarts that counted before it."""


def jobset(
    identity: Identity,
    *,
    role: str,
    nodes: int,
    pod_template: dict[str, Any],
    budget: Budget,
    queue: str | None = None,
) -> dict[str, Any]:
    """The manifest. `suspend` is left out: on queued JobSets Kueue owns it.

    Args:
        role: name of the one replicated job.
        nodes: pods in the gang.
    """
    main = Role(name=role, job=job_template(identity, role, nodes, pod_template))
    policy = failure_policy(budget.max_restarts)
    return of_roles(identity, (main,), main=role, failure_policy=policy, budget=budget, queue=queue)


@dataclass(frozen=True, kw_only=True)
class Role:
    """One replicated job: its name and its Job's template; `after` names one before it that it waits for."""

    name: str
    job: dict[str, Any]
    after: str | None = None
    status: str = "Ready"
    """What the one before must be: Ready or Complete."""

    @property
    def manifest(self) -> dict[str, Any]:
        waits = {"dependsOn": [{"name": self.after, "status": self.status}]} if self.after else {}
        return {"name": self.name, "replicas": 1, "template": self.job, **waits}


def of_roles(
    identity: Identity,
    roles: Sequence[Role],
    *,
    main: str,
    failure_policy: dict[str, Any],
    budget: Budget,
    queue: str | None = None,
) -> dict[str, Any]:
    """A JobSet of one role or of several. It succeeds when the main one does; the others are ended then."""
    spec = {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "successPolicy": {"operator": "All", **({"targetReplicatedJobs": [main]} if len(roles) > 1 else {})},
        "failurePolicy": failure_policy,
        "replicatedJobs": [each.manifest for each in roles],
    }
    annotations = {
        FIRST_ATTEMPT: str(budget.first_attempt),
        RESTARTS_BEFORE: str(budget.restarts_before),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "JobSet",
        "metadata": {
            "name": identity.name,
            "namespace": identity.namespace,
            "labels": {**identity.labels(main), **({QUEUE_LABEL: queue} if queue else {})},
            "annotations": annotations,
            "ownerReferences": [identity.owner_reference()],
        },
        "spec": spec,
    }


def failure_policy(max_restarts: int) -> dict[str, Any]:
    """First match wins; what matches nothing (out of memory, a bug, a lost pod) restarts and is counted."""
    return {
        "maxRestarts": max_restarts,
        # Never two trainers on one run: a new attempt waits until the old one's pods are gone.
        "restartStrategy": "BlockingRecreate",
        "rules": [
            {
                "name": "permanent",
                "action": "FailJobSet",
                "onJobFailureReasons": _BY_POLICY,
                "onJobFailureMessagePatterns": [_PERMANENT],
            },
            {
                "name": "checkpointed",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": _BY_POLICY,
                "onJobFailureMessagePatterns": [_CHECKPOINTED],
            },
            {
                "name": "disrupted",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": _BY_POLICY,
                "onJobFailureMessagePatterns": [_DISRUPTED],
            },
        ],
    }


def job_template(identity: Identity, role: str, nodes: int, pod_template: dict[str, Any]) -> dict[str, Any]:
    """An Indexed Job whose first lost pod ends it, so that the JobSet decides about the gang."""
    return {
        "metadata": {"labels": identity.labels(role)},
        "spec": {
            "completionMode": "Indexed",
            "parallelism": nodes,
            "completions": nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            # Without these rules every failure would read BackoffLimitExceeded: the JobSet could not tell them apart.
            "podFailurePolicy": {
                "rules": [
                    _fail_on_exit_codes(list(PERMANENT_EXIT_CODES)),
                    _fail_on_exit_codes([int(ExitCode.CHECKPOINTED)]),
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": pod_template,
        },
    }


def repeated_job(
    identity: Identity, role: str, pod_template: dict[str, Any], *, nodes: int = 1, **policy: Any
) -> dict[str, Any]:
    """An Indexed Job that repeats its pods itself, one by one: what is lost in it concerns no other role.

    Ends that another try can't change end it; evictions and checkpoints on request count for nothing.
    """
    spec = {
        "completionMode": "Indexed", "parallelism": nodes, "completions": nodes, "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [
            _fail_on_exit_codes(list(PERMANENT_EXIT_CODES)),
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [int(ExitCode.CHECKPOINTED)]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]},
        "template": pod_template, **policy,
    }  # fmt: skip
    return {"metadata": {"labels": identity.labels(role)}, "spec": spec}


_NEVER_DONE = f"""trap 'kill -TERM "$child"' TERM
"$@" & child=$!
wait "$child"; code=$?
if kill -0 "$child" 2>/dev/null; then wait "$child"; code=$?; fi
if [ "$code" = 0 ]; then code={ExitCode.CHECKPOINTED:d}; fi
exit "$code"
"""


def never_done(command: Sequence[str]) -> tuple[str, ...]:
    """For a `repeated_job` whose work is over only when the JobSet's is. It needs `sh` in the image.

    What is told to stop (vLLM, our own processes) ends with 0. Its Job would take that for the end of the work, never
    make the pod again, and everybody else would wait for it.
    """
    return ("sh", "-c", _NEVER_DONE, "main", *command)


GAVE_UP: dict[str, Any] = {"maxRestarts": 0, "rules": [{"name": "gaveUp", "action": "FailJobSet"}]}
"""Failure policy of roles that repeat their own pods: a role that gave up would only do so again."""


def _fail_on_exit_codes(codes: list[int]) -> dict[str, Any]:
    return {"action": "FailJob", "onExitCodes": {"operator": "In", "values": sorted(codes)}}
