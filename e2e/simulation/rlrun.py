"""RLRuns and what they look at, as the API server returns them."""

from __future__ import annotations

from typing import Any

from e2e.simulation import objects
from e2e.simulation.evalsuite import pod
from e2e.simulation.objects import UID, Object, sftjob

ROLES = ("trainer", "rollout", "sampler", "coordinator", "proxy")


def rlrun(
    name: str = "job", *, uid: str = UID, status: Object | None = None, meta: Object | None = None, **spec: Any
) -> Object:
    """A valid RLRun in namespace `team`; keywords are fields of the spec."""
    whole = {
        "model": {"uri": "s3://pinnace/models/tiny"}, "tasks": {"builtin": {"name": "arithmetic-tools"}},
        "agent": {"loop": {}}, "reward": {"builtin": {}}, "steps": 100, "contextTokens": 512, "turnTokens": 64,
        "rollout": {"reference": {"replicas": 2}}, "trainer": {"device": "cpu"}, **spec,
    }  # fmt: skip
    return {**sftjob(name, uid=uid, status=status, meta=meta), "kind": "RLRun", "spec": whole}


def jobset(**facts: Any) -> Object:
    return objects.jobset(labels={"pinnace.dev/kind": "RLRun"}, **facts)


def gang(**instead: Object | None) -> tuple[Object, ...]:
    """One running pod of each role; `trainer=…` puts another one in its place, None none."""
    pods = {role: instead.get(role, pod(role)) for role in ROLES}
    return tuple(each for each in pods.values() if each is not None)
