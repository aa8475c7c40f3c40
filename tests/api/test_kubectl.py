"""What people see in kubectl: explain, columns, field selectors, and a status that survives the API server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pinnace_operator.api.conditions import Condition, ConditionType, Reason
from pinnace_operator.api.sft import SFTJob
from pinnace_operator.api.status import (
    CheckpointRef,
    InputRef,
    JobStatus,
    LastFailure,
    Metric,
    OutputRef,
    Pending,
    Progress,
)

from e2e.kube import CommandError, Kubectl

Manifest = dict[str, Any]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def created(kubectl: Kubectl, job: Callable[[dict[str, Any]], Manifest]) -> Iterator[str]:
    kubectl.run("create", "-f", "-", stdin=json.dumps(job({"metadata.name": "seen", "spec.queueName": "team"})))
    yield "seen"
    kubectl.run("delete", "sft", "seen")


def _write(kubectl: Kubectl, name: str, status: JobStatus) -> None:
    patch = json.dumps([{"op": "add", "path": "/status", "value": status.to_manifest()}])
    kubectl.run("patch", "sft", name, "--subresource=status", "--type=json", "-p", patch)


def _conditions(**statuses: str) -> tuple[Condition, ...]:
    return tuple(
        Condition(type=ConditionType(name), status=status, reason=Reason.RUNNING, last_transition_time=NOW)
        for name, status in statuses.items()
    )


@pytest.mark.parametrize(
    ("path", "teaches"),
    [
        ("sftjob.spec.model", ["exactly one of uri, hub and", "s3://bucket/path", "makes a pipeline"]),
        ("sftjob.spec.training.learningRate", ["decimal in quotes"]),
        ("sftjob.spec.deepspeed.zeroStage", ["ZeRO shards"]),
        ("sftjob.spec.trainer.resources.limits", ["nvidia.com/gpu"]),
        ("sftjob.spec.suspend", ["checkpoint"]),
        ("sftjob.status.conditions.reason", ["ENUM", "OutOfMemory"]),
    ],
)
def test_kubectl_explain_teaches(kubectl: Kubectl, path: str, teaches: list[str]) -> None:
    text = " ".join(kubectl.run("explain", path).split())
    assert not [part for part in teaches if part not in text], text


@pytest.mark.parametrize("word", ["sft", "sftjob", "sftjobs", "pinnace", "pn"])
def test_jobs_are_listed_by_every_name(kubectl: Kubectl, created: str, word: str) -> None:
    assert created in kubectl.run("get", word)


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ({}, "Pending"),
        ({"Progressing": "False"}, "Pending"),
        ({"Progressing": "True"}, "Running"),
        ({"Suspended": "True", "Progressing": "False"}, "Suspended"),
        # Resumed: Suspended stays in the list as False, and is not the newest to have flipped.
        ({"Progressing": "True", "Suspended": "False"}, "Running"),
        ({"Suspended": "False", "Progressing": "True"}, "Running"),
        ({"Stalled": "True", "Progressing": "True"}, "Stalled"),
        ({"Progressing": "False", "Complete": "True"}, "Complete"),
        ({"Progressing": "False", "Suspended": "True", "Failed": "True"}, "Failed"),
    ],
)
def test_the_state_column_follows_from_the_conditions(
    kubectl: Kubectl, created: str, conditions: dict[str, str], state: str
) -> None:
    _write(kubectl, created, JobStatus(conditions=_conditions(**conditions)))
    header, row = kubectl.run("get", "sft", created).splitlines()
    assert header.split() == ["NAME", "STATE", "PROGRESS", "REASON", "QUEUE", "AGE"]
    assert row.split()[1] == state
    assert created in kubectl.run("get", "sft", "--field-selector", f"status.state={state}")


def test_a_state_that_contradicts_the_conditions_can_not_be_built() -> None:
    assert JobStatus(state="Complete", conditions=_conditions(Failed="True")).state == "Failed"


def test_columns_show_progress_reason_and_queue(kubectl: Kubectl, created: str) -> None:
    progress = Progress(step=30, total_steps=60, percent=50, metrics=(Metric(name="loss", value="0.7"),))
    _write(kubectl, created, JobStatus(conditions=_conditions(Progressing="True"), progress=progress))
    row = kubectl.run("get", "sft", created, "-o", "wide").splitlines()[1].split()
    assert row[:5] == [created, "Running", "50", "Running", "team"]
    assert "30" in row[5:]
    assert "0.7" in row[5:]


def test_a_full_status_comes_back_as_it_was_written(kubectl: Kubectl, created: str) -> None:
    status = JobStatus(
        observed_generation=1,
        start_time=NOW,
        completion_time=NOW,
        conditions=_conditions(Progressing="False", Complete="True"),
        progress=Progress(step=1, total_steps=2, percent=50, eta_seconds=9, throughput="812 tokens/s"),
        checkpoint=CheckpointRef(step=1, uri="s3://bucket/run/checkpoints/step-00000001", digest=DIGEST, time=NOW),
        output=OutputRef(uri="s3://bucket/run/output", digest=DIGEST),
        inputs=(InputRef(ref="model: SFTJob/base", uri="s3://bucket/base/output", digest=DIGEST),),
        pending=Pending(reason=Reason.UNSCHEDULABLE, message="no node"),
        last_failure=LastFailure(
            pod="p",
            container="trainer",
            exit_code=137,
            reason=Reason.OUT_OF_MEMORY,
            message="m",
            log_tail="l",
            time=NOW,
        ),
        restarts=1,
    )
    _write(kubectl, created, status)
    stored = kubectl.get("sft", created)
    assert stored is not None
    assert stored["status"] == status.to_manifest()
    assert SFTJob.from_manifest(stored).status == status


def test_a_reason_outside_the_closed_list_is_refused(kubectl: Kubectl, created: str) -> None:
    patch = json.dumps({"status": {"pending": {"reason": "Bored"}}})
    with pytest.raises(CommandError, match=r'status\.pending\.reason: Unsupported value: "Bored"'):
        kubectl.run("patch", "sft", created, "--subresource=status", "--type=merge", "-p", patch)
