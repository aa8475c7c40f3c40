"""The pod that deletes a run's S3 data, of whatever kind the run is."""

from __future__ import annotations

from typing import Any

from pinnace_operator.api.pod import PodTemplate
from pinnace_operator.builders import jobset, pod
from pinnace_operator.builders.identity import Identity

ROLE = "cleanup"


def cleanup(
    identity: Identity, *, image: str, overlay: PodTemplate, env: list[dict[str, Any]], pull_policy: str
) -> dict[str, Any]:
    """One small pod. Its JobSet has the job's name, so it can't run beside the job."""
    container = pod.Container(
        name=ROLE, image=image, command=("pinnace", "cleanup"),
        resources={"requests": {"cpu": "50m", "memory": "128Mi"}}, env=tuple(env),
    )  # fmt: skip
    plain = overlay.model_copy(update={"resource_claims": (), "env": ()})
    template = pod.template((container,), labels=identity.labels(ROLE), overlay=plain, pull_policy=pull_policy)
    return jobset.jobset(identity, role=ROLE, nodes=1, pod_template=template, budget=jobset.Budget(max_restarts=3))
