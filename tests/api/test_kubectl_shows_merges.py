"""What people see of a MergeJob in kubectl, and what of it they can still change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pinnace_operator.api.conditions import Condition, ConditionType, Reason
from pinnace_operator.api.fields import Time
from pinnace_operator.api.kinds import KINDS
from pinnace_operator.api.merge import MergeJob
from pinnace_operator.api.merge_status import MergedFile, MergeJobStatus, MergePlan, SweepRow, SweepStatus
from pinnace_operator.api.status import OutputRef, Progress
from pydantic import TypeAdapter

from e2e.kube import CommandError, Kubectl
from tests.api.cases import Manifest

NOW = TypeAdapter(Time).validate_python("2026-01-02T03:04:05Z")
DIGEST = "sha256:" + "0" * 64
DONE = MergeJobStatus(
    observed_generation=1,
    start_time=NOW,
    conditions=(
        Condition(type=ConditionType.PROGRESSING, status="False", reason=Reason.COMPLETED, last_transition_time=NOW),
        Condition(type=ConditionType.COMPLETE, status="True", reason=Reason.COMPLETED, last_transition_time=NOW),
    ),
    progress=Progress(step=10**11, total_steps=10**11, percent=100, throughput="412 MiB/s"),
    output=OutputRef(uri="s3://bucket/run/output", digest=DIGEST),
    plan=MergePlan(tensors=398, input_bytes=16 * 10**9, output_bytes=8 * 10**9, files=2),
    files=(MergedFile(name="model.safetensors", bytes=4 * 10**9, digest=DIGEST),),
    sweep=SweepStatus(
        candidates=2,
        scored=2,
        rows=(SweepRow(candidate="candidate-001", values=("0.7",), special="1.2", general="2.1", total="1.65"),),
        winner="candidate-001",
        plot="s3://bucket/run/history/sweep.svg",
    ),
)
DATA = {"builtin": {"name": "arithmetic-tools"}}
IMMUTABLE: dict[str, Any] = {
    "method": {"taskArithmetic": {"lambda": "0.5"}},
    "base": {"uri": "s3://pinnace/models/another"},
    "models": [{"name": "other", "source": {"uri": "s3://pinnace/models/other"}, "weight": "1"}],
    "layers": [{"parameter": "weight", "values": ["0.1", "0.9"]}],
    "tokenizer": "AlignToBase",
    "missingTensors": "TakeBase",
    "extraTensors": "Ignore",
    "fp8": "Upcast",
    "computeDtype": "fp64",
    "outputDtype": "bf16",
    "memoryLimit": "2Gi",
    "shardSize": "1Gi",
    "seed": 7,
    "sweep": {"axes": [{"parameter": "lambda", "values": ["1"]}], "metric": {"special": DATA, "general": DATA}},
    "worker": {"resources": {"requests": {"cpu": 3}}},
    "storage": {"bucket": "other"},
    "queueName": "other-queue",
}
MUTABLE: dict[str, Any] = {
    "suspend": True,
    "activeDeadlineSeconds": 3600,
    "ttlSecondsAfterFinished": 60,
    "backoffLimit": 9,
    "deletionPolicy": "Delete",
}


@pytest.fixture
def created(kubectl: Kubectl, merge: Callable[[dict[str, Any]], Manifest]) -> Iterator[str]:
    room = {"metadata.name": "seen", "spec.worker.resources": {"limits": {"memory": "4Gi"}}}
    kubectl.run("create", "-f", "-", stdin=json.dumps(merge(room)))
    yield "seen"
    kubectl.run("delete", "mrg", "seen")


def _write(kubectl: Kubectl, status: MergeJobStatus) -> None:
    patch = json.dumps([{"op": "add", "path": "/status", "value": status.to_manifest()}])
    kubectl.run("patch", "mrg", "seen", "--subresource=status", "--type=json", "-p", patch)


def _change(kubectl: Kubectl, field: str, value: Any) -> None:
    kubectl.run("patch", "mrg", "seen", "--type=merge", "-p", json.dumps({"spec": {field: value}}))


@pytest.mark.parametrize(
    ("path", "teaches"),
    [
        ("mergejob.spec.method", ["exactly one", "{}"]),
        ("mergejob.spec.method.ties", ["arxiv.org/abs/2306.01708", "largest share"]),
        ("mergejob.spec.method.dareTies.lambda", ["Scale of the merged task vector"]),
        ("mergejob.spec.models", ["base is not one of them"]),
        ("mergejob.spec.memoryLimit", ["however large the models are"]),
        ("mergejob.spec.sweep.metric", ["mean cross-entropy"]),
    ],
)
def test_kubectl_explain_teaches(kubectl: Kubectl, path: str, teaches: list[str]) -> None:
    text = " ".join(kubectl.run("explain", path).split())
    assert not [part for part in teaches if part not in text], text


@pytest.mark.parametrize("word", ["mrg", "mergejob", "mergejobs", "pinnace", "pn"])
def test_merges_are_listed_by_every_name(kubectl: Kubectl, created: str, word: str) -> None:
    assert created in kubectl.run("get", word)


def test_columns_show_progress_winner_and_output(kubectl: Kubectl, created: str) -> None:
    _write(kubectl, DONE)
    header, row = kubectl.run("get", "mrg", created).splitlines()
    assert header.split() == ["NAME", "STATE", "PROGRESS", "REASON", "QUEUE", "AGE"]
    assert row.split()[1:4] == ["Complete", "100", "Completed"]
    wide = kubectl.run("get", "mrg", created, "-o", "wide").splitlines()[1]
    assert all(part in wide for part in ("412 MiB/s", "candidate-001", "s3://bucket/run/output"))


def test_a_full_status_comes_back_as_it_was_written(kubectl: Kubectl, created: str) -> None:
    _write(kubectl, DONE)
    stored = kubectl.get("mrg", created)
    assert stored is not None
    assert stored["status"] == DONE.to_manifest()
    assert MergeJob.from_manifest(stored).status == DONE


def test_the_tables_cover_every_field_of_the_spec() -> None:
    kind = next(each for each in KINDS if each.name == "MergeJob")
    assert set(IMMUTABLE) == set(kind.immutable)
    fields = {field.alias or name for name, field in kind.model.model_fields["spec"].annotation.model_fields.items()}
    assert {*IMMUTABLE, *MUTABLE} == fields


@pytest.mark.parametrize("field", IMMUTABLE)
def test_a_started_merge_keeps_its_recipe(kubectl: Kubectl, created: str, field: str) -> None:
    _write(kubectl, MergeJobStatus(start_time=NOW))
    with pytest.raises(CommandError, match=rf"spec\.{field} can't change after the job has started"):
        _change(kubectl, field, IMMUTABLE[field])


@pytest.mark.parametrize("field", IMMUTABLE)
def test_a_merge_that_has_not_started_can_be_corrected(kubectl: Kubectl, created: str, field: str) -> None:
    _change(kubectl, field, IMMUTABLE[field])


@pytest.mark.parametrize("field", MUTABLE)
def test_a_started_merge_can_still_be_steered(kubectl: Kubectl, created: str, field: str) -> None:
    _write(kubectl, MergeJobStatus(start_time=NOW))
    _change(kubectl, field, MUTABLE[field])
