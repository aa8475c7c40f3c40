"""SFTJob: what it adds to the life that all jobs share."""

from __future__ import annotations

from typing import Any

from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.sft import SFTJob, SFTJobSpec
from pinnace_operator.api.status import InputRef
from pinnace_operator.builders import sft
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.jobset import Budget
from pinnace_operator.reconcile import upstream
from pinnace_operator.reconcile.decide import decide
from pinnace_operator.reconcile.job import JobType, Models
from pinnace_operator.reconcile.plan import Observed, OperatorSettings, Plan, Raw
from pinnace_operator.reconcile.pod_environment import images, variables


def reconcile(resource: Raw, observed: Observed) -> Plan:
    """What to do for an SFTJob (as the API server returns it)."""
    return decide(SFT, resource, observed)


def references(resource: Raw) -> tuple[tuple[str, str], ...]:
    """(kind, name) of the resource whose result it starts from."""
    return upstream.references([(resource.get("spec") or {}).get("model")])


def _parse(resource: Raw) -> SFTJobSpec:
    # Without the status: whether that can be read is another question.
    return SFTJob.from_manifest({name: value for name, value in resource.items() if name != "status"}).spec


def _lineage(spec: SFTJobSpec) -> tuple[InputRef, ...]:
    data = {"data.train": spec.data.train, "data.eval": spec.data.eval}
    return tuple(upstream.data(field, source) for field, source in data.items() if source)


def _build(
    identity: Identity, spec: SFTJobSpec, settings: OperatorSettings, models: Models, budget: Budget
) -> dict[str, Any]:
    env = variables(identity, spec, settings, models, budget.first_attempt)
    return sft.training(identity, spec, env=env, images=images(settings), budget=budget)


SFT = JobType(
    role=sft.ROLE,
    crashed=Reason.TRAINER_FAILED,
    parse=_parse,
    nodes=lambda spec: spec.trainer.nodes,
    pod_resources=lambda spec: spec.trainer.resources.to_manifest(),
    sources=lambda spec: {"model": spec.model},
    data=_lineage,
    build=_build,
    image=lambda spec, images: sft.image_of(spec.trainer, images),
    overlay=lambda spec: spec.trainer.pod_template,
)
