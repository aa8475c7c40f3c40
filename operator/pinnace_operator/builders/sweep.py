"""The EvalSuites of a sweep, one a candidate."""

from __future__ import annotations

from typing import Any

from pinnace_operator.api.base import API_VERSION
from pinnace_operator.api.evalsuite import EvalSuiteSpec, Evaluation
from pinnace_operator.api.merge import MergeJobSpec
from pinnace_operator.api.mergesweep import EvalSuiteTemplate
from pinnace_operator.api.shared import ModelSource
from pinnace_operator.builders.identity import Identity

SUITE = "EvalSuite"
_ROLE = "evaluation"
# Without the deadline: the job's own counts all of its suites.
_INHERITED = ("storage", "queue_name", "suspend", "ttl_seconds_after_finished", "backoff_limit", "deletion_policy")


def suite_name(job: str, number: int) -> str:
    """Of the candidate with that number."""
    return f"{job}-{number:03d}"


def suite(
    identity: Identity, spec: MergeJobSpec, template: EvalSuiteTemplate, number: int, model: str
) -> dict[str, Any]:
    """The EvalSuite of the candidate whose weights are at `model`."""
    evaluation = {name: getattr(template, name) for name in Evaluation.model_fields}
    inherited = {name: getattr(spec, name) for name in _INHERITED}
    whole = EvalSuiteSpec(model=ModelSource(uri=model), **evaluation, **inherited)
    return {
        "apiVersion": API_VERSION,
        "kind": SUITE,
        "metadata": {
            "name": suite_name(identity.name, number),
            "namespace": identity.namespace,
            "labels": identity.labels(_ROLE),
            "ownerReferences": [identity.owner_reference()],
        },
        "spec": whole.to_manifest(),
    }
