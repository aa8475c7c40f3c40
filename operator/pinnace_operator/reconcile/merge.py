"""MergeJob: what it adds to the life that all jobs share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.merge import MergeJob, MergeJobSpec
from pinnace_operator.api.merge_status import MergeJobStatus
from pinnace_operator.api.status import InputRef
from pinnace_operator.builders import environment, merge
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.jobset import Budget
from pinnace_operator.reconcile import sweep, upstream
from pinnace_operator.reconcile.decide import decide
from pinnace_operator.reconcile.job import Job, JobType, Models
from pinnace_operator.reconcile.plan import Observed, OperatorSettings, Plan, Raw
from pinnace_operator.reconcile.pod_environment import images, variables

_REMEDIES = {
    Reason.UNSCHEDULABLE: "lower spec.memoryLimit or spec.worker.resources, change worker.podTemplate.nodeSelector or "
    "tolerations, or add a node",
    Reason.OUT_OF_MEMORY: "raise worker.resources.limits.memory: it must hold memoryLimit and, for a sweep, the model; "
    "or lower memoryLimit, or sweep.metric.maxLength",
    Reason.MODEL_UNUSABLE: "point spec.base and models[].source at models of one architecture in Hugging Face layout, "
    "or allow the difference with tokenizer, missingTensors or extraTensors",
    Reason.INVALID_DATA: "correct the records that the message names in sweep.metric's data, and create the job again",
    Reason.DEADLINE_EXCEEDED: "create it again with a later deadline, or more worker.resources",
    Reason.NO_PROGRESS: "read the worker's log; set suspend to true and false again to go on from what is uploaded",
}


def reconcile(resource: Raw, observed: Observed) -> Plan:
    """What to do for a MergeJob (as the API server returns it)."""
    return decide(MERGE, resource, observed)


def references(resource: Raw) -> tuple[tuple[str, str], ...]:
    """(kind, name) of the resources whose results it merges, and of its own EvalSuites."""
    spec = resource.get("spec") or {}
    sources = [spec.get("base")]
    sources += [each.get(one) for each in spec.get("models") or () for one in ("source", "adapter")]
    return (*upstream.references(sources), *sweep.references(resource))


def _parse(resource: Raw) -> MergeJobSpec:
    # Without the status: whether that can be read is another question.
    return MergeJob.from_manifest({name: value for name, value in resource.items() if name != "status"}).spec


def _lineage(spec: MergeJobSpec) -> tuple[InputRef, ...]:
    metric = spec.sweep.metric if spec.sweep else None
    data = {"special": metric.special, "general": metric.general} if metric else {}
    return tuple(upstream.data(f"sweep.metric.{field}", source) for field, source in data.items())


def _build(
    identity: Identity, spec: MergeJobSpec, settings: OperatorSettings, models: Models, budget: Budget
) -> dict[str, Any]:
    sources = {field: each for field, each in models.items() if field != sweep.TABLE}
    env = variables(identity, spec, settings, sources, budget.first_attempt)
    if table := models.get(sweep.TABLE):
        env.append(environment.plain("PINNACE_SWEEP", json.dumps(table, sort_keys=True, separators=(",", ":"))))
    return merge.merging(identity, spec, env=env, images=images(settings), budget=budget)


def _reported(job: Job) -> Mapping[str, Any]:
    """The worker's last words, else its latest report, else what was known; of a sweep, the fullest table."""
    known = sweep.reports(job)
    return {
        "plan": next((each.plan for each in known if each.plan), None),
        "files": next((each.files for each in known if each.files), ()),
        "sweep": sweep.status(job),
    }


MERGE = JobType(
    role=merge.ROLE,
    crashed=Reason.WORKER_FAILED,
    parse=_parse,
    nodes=lambda _: 1,
    pod_resources=merge.resources,
    sources=lambda spec: spec.sources,
    data=_lineage,
    build=_build,
    image=lambda spec, images: merge.image_of(spec.worker, images),
    overlay=lambda spec: spec.worker.pod_template,
    remedies=_REMEDIES,
    status=MergeJobStatus,
    results=_reported,
    between=sweep.evaluating,
    needs=sweep.needs,
)
