"""What people see of EvalSuites in kubectl: columns, and a status that survives the API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pinnace_operator.api.conditions import Condition, ConditionType, Reason
from pinnace_operator.api.evalresult import BenchmarkResult, Compared, Ended
from pinnace_operator.api.evalstatus import EvalSuiteStatus
from pinnace_operator.api.status import OutputRef, Progress

from e2e.kube import CommandError, Kubectl

from .conftest import patched
from .test_invalid_suites import smallest

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STATUS = EvalSuiteStatus(
    observed_generation=1,
    start_time=NOW,
    conditions=(
        Condition(type=ConditionType.PROGRESSING, status="True", reason=Reason.RUNNING, last_transition_time=NOW),
    ),
    progress=Progress(step=5, total_steps=10, percent=50, eta_seconds=60),
    output=OutputRef(uri="s3://pinnace/ns/evalsuite/seen/1/output", digest="sha256:" + "0" * 64),
    score="63.3 ± 4.1",
    benchmarks=(
        BenchmarkResult(
            name="gaia", done=5, total=10, score="63.3", low="59.2", high="67.4", pass_at="80.0", tokens=123,
            cost="0.10", failures=(Ended(reason="turns", count=2),),
            compared=(Compared(suite="base", difference="+3.1", low="-1.0", high="+7.2"),),
        ),
    ),
)  # fmt: skip


@pytest.fixture
def created(kubectl: Kubectl) -> Iterator[str]:
    kubectl.run("create", "-f", "-", stdin=json.dumps(patched(smallest(), {"metadata.name": "seen"})))
    patch = json.dumps([{"op": "add", "path": "/status", "value": STATUS.to_manifest()}])
    kubectl.run("patch", "evs", "seen", "--subresource=status", "--type=json", "-p", patch)
    yield "seen"
    kubectl.run("delete", "evs", "seen")


def test_the_columns_tell_score_progress_and_state(kubectl: Kubectl, created: str) -> None:
    head, row = kubectl.run("get", "evs", created).splitlines()
    assert head.split() == ["NAME", "SCORE", "STATE", "PROGRESS", "REASON", "QUEUE", "AGE"]
    assert "63.3 ± 4.1" in row
    assert row.split()[4:7] == ["Running", "50", "Running"]
    wide = kubectl.run("get", "evs", created, "-o", "wide")
    assert "s3://pinnace/ns/evalsuite/seen/1/output" in wide


def test_the_status_is_kept_as_it_was_written(kubectl: Kubectl, created: str) -> None:
    stored = json.loads(kubectl.run("get", "evs", created, "-o", "json"))["status"]
    assert EvalSuiteStatus.from_manifest(stored) == STATUS


@pytest.mark.parametrize(
    "spec", [{"shards": 2}, {"benchmarks": [{"name": "gaia", "attempts": 2}]}, {"backoffLimit": 9}]
)  # fmt: skip
def test_a_started_suite_keeps_its_recipe(kubectl: Kubectl, created: str, spec: dict[str, object]) -> None:
    with pytest.raises(CommandError, match="can't change after the job has started"):
        kubectl.run("patch", "evs", created, "--type=merge", "-p", json.dumps({"spec": spec}))
    kubectl.run("patch", "evs", created, "--type=merge", "-p", '{"spec": {"suspend": true}}')
