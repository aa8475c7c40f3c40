"""Once a job has started, only what can still be honoured may change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pinnace_operator.api.kinds import KINDS

from e2e.kube import CommandError, Kubectl

Manifest = dict[str, Any]
STATUS = {"status": {"startTime": "2026-01-01T00:00:00Z"}}

IMMUTABLE: dict[str, Any] = {
    "model": {"uri": "s3://pinnace/models/other"},
    "data": {"evalPercent": 10},
    "training": {"learningRate": "1e-5"},
    "deepspeed": {"zeroStage": 3},
    "lora": {"rank": 8},
    "checkpoint.everySteps": {"everySteps": 50},
    "trainer": {"nodes": 2},
    "tracking": {"tensorboard": True},
    "storage": {"bucket": "other"},
    "queueName": "other-queue",
}
MUTABLE: dict[str, Any] = {
    "suspend": True,
    "activeDeadlineSeconds": 3600,
    "ttlSecondsAfterFinished": 60,
    "backoffLimit": 9,
    "checkpoint": {"keepLast": 5, "keepBest": 0},
    "deletionPolicy": "Delete",
}


@pytest.fixture
def created(kubectl: Kubectl, job: Callable[[dict[str, Any]], Manifest]) -> Iterator[Manifest]:
    manifest = job({"metadata.name": "changes"})
    kubectl.run("create", "-f", "-", stdin=json.dumps(manifest))
    yield manifest
    kubectl.run("delete", "sft", "changes")


def _patch(kubectl: Kubectl, spec: dict[str, Any]) -> None:
    kubectl.run("patch", "sft", "changes", "--type=merge", "-p", json.dumps({"spec": spec}))


def _start(kubectl: Kubectl) -> None:
    kubectl.run("patch", "sft", "changes", "--subresource=status", "--type=merge", "-p", json.dumps(STATUS))


def _spec(field: str, value: Any) -> dict[str, Any]:
    return {field.split(".", maxsplit=1)[0]: value}


def test_the_tables_cover_every_field_of_the_spec() -> None:
    kind = next(each for each in KINDS if each.name == "SFTJob")
    assert set(IMMUTABLE) == set(kind.immutable)
    fields = {field.alias or name for name, field in kind.model.model_fields["spec"].annotation.model_fields.items()}
    assert {field.split(".")[0] for field in [*IMMUTABLE, *MUTABLE]} == fields


@pytest.mark.parametrize("field", IMMUTABLE)
def test_a_started_job_keeps_its_recipe(kubectl: Kubectl, created: Manifest, field: str) -> None:
    _start(kubectl)
    with pytest.raises(CommandError) as refused:
        _patch(kubectl, _spec(field, IMMUTABLE[field]))
    assert f"spec.{field} can't change after the job has started: create a new job" in str(refused.value)


@pytest.mark.parametrize("field", IMMUTABLE)
def test_a_job_that_has_not_started_can_be_corrected(kubectl: Kubectl, created: Manifest, field: str) -> None:
    extra = {"training": {"globalBatchSize": 4}} if field == "trainer" else {}
    _patch(kubectl, _spec(field, IMMUTABLE[field]) | extra)


@pytest.mark.parametrize("field", MUTABLE)
def test_a_started_job_can_still_be_steered(kubectl: Kubectl, created: Manifest, field: str) -> None:
    _start(kubectl)
    _patch(kubectl, _spec(field, MUTABLE[field]))


def test_an_optional_field_can_not_be_removed_from_a_started_job(kubectl: Kubectl, created: Manifest) -> None:
    _patch(kubectl, {"queueName": "first"})
    _start(kubectl)
    with pytest.raises(CommandError, match=r"spec\.queueName can't change"):
        _patch(kubectl, {"queueName": None})


def test_applying_the_same_manifest_again_is_no_change(kubectl: Kubectl, created: Manifest) -> None:
    _start(kubectl)
    assert "serverside-applied" in kubectl.run(
        "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(created)
    )
