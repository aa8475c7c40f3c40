"""What a MergeJob's JobSet holds."""

from __future__ import annotations

from typing import Any

from pinnace_operator.api.merge import MergeJobSpec, MergeWorker
from pinnace_operator.builders import environment, jobset, pod
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.images import Images

ROLE = "worker"
_CPU = "2"


def merging(
    identity: Identity,
    spec: MergeJobSpec,
    *,
    env: list[dict[str, Any]],
    images: Images,
    budget: jobset.Budget,
) -> dict[str, Any]:
    """One worker. It checks everything before it writes, so that no other container has to.

    Args:
        env: storage, progress and job description.
    """
    worker = spec.worker
    container = pod.Container(
        name=ROLE, image=image_of(worker, images), command=("pinnace", "merge", "run"), resources=resources(spec),
        env=(*env, environment.plain("OMP_NUM_THREADS", str(worker.cores))),
    )  # fmt: skip
    template = pod.template(
        (container,),
        labels=identity.labels(ROLE),
        overlay=worker.pod_template,
        pull_policy=images.pull_policy,
        config_maps=config_maps(spec),
    )
    return jobset.jobset(identity, role=ROLE, nodes=1, pod_template=template, budget=budget, queue=spec.queue_name)


def image_of(worker: MergeWorker, images: Images) -> str:
    """The user's image, or ours for the device."""
    return worker.image or images.trainer(worker.device)


def resources(spec: MergeJobSpec) -> dict[str, Any]:
    """The user's, and what is absent by memoryLimit: the kernel's own memory and a reserve come on top of it."""
    given = spec.worker.resources
    requests, limits = dict(given.requests or {}), dict(given.limits or {})
    if "cpu" not in limits:
        requests.setdefault("cpu", _CPU)
    if "memory" not in limits and "memory" not in requests:
        limits["memory"] = f"{-(-spec.memory_bytes * 5 // 4 >> 20)}Mi"
    return {"requests": requests, "limits": limits} if requests else {"limits": limits}


def config_maps(spec: MergeJobSpec) -> list[str]:
    """Names of the ConfigMaps that the pod reads."""
    metric = spec.sweep.metric if spec.sweep else None
    sources = [metric.special, metric.general] if metric else []
    return [each.config_map.name for each in sources if each.config_map]
