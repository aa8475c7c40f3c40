"""What people see of ToolSandboxes in kubectl: explain, columns, scale, and a status that survives the API server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pinnace_operator.api.conditions import Condition, ConditionType, Reason
from pinnace_operator.api.toolsandbox import ToolSandbox
from pinnace_operator.api.toolsandbox_status import (
    GatewayStatus,
    ServerState,
    ServerStatus,
    SessionsStatus,
    ToolFailure,
    ToolHealth,
    ToolSandboxStatus,
)

from e2e.kube import Kubectl

Manifest = dict[str, Any]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STATUS = ToolSandboxStatus(
    observed_generation=1,
    conditions=(
        Condition(type=ConditionType.READY, status="True", reason=Reason.DEGRADED, last_transition_time=NOW),
        Condition(type=ConditionType.STALLED, status="True", reason=Reason.CRASH_LOOP, last_transition_time=NOW),
    ),
    endpoint="http://seen.api-tests.svc:8080",
    tools=104,
    servers_ready="15/16",
    gateway=GatewayStatus(ready=2, desired=2, reason=Reason.AVAILABLE, message="m", last_busy_time=NOW),
    servers=(
        ServerStatus(name="time", version="v1", state=ServerState.READY, reason=Reason.AVAILABLE, ready=1, desired=1),
        ServerStatus(
            name="time", version="v2", state=ServerState.FAILING, reason=Reason.CRASH_LOOP, message="m", tools=2,
            since=NOW, last_busy_time=NOW,
        ),
    ),
    sessions=SessionsStatus(free=3, armed=2, warm=4, desired=6, in_use="2/64", reason=Reason.SCALING, message="m"),
    unhealthy_tools=(ToolHealth(name="search", outcome="timeout", message="m"),),
    failures=(ToolFailure(name="time/v2", reason=Reason.CRASH_LOOP, message="m", time=NOW),),
)  # fmt: skip


@pytest.fixture
def created(kubectl: Kubectl, sandbox: Callable[[dict[str, Any]], Manifest]) -> Iterator[str]:
    manifest = sandbox({"metadata.name": "seen", "spec.sessions": {"warm": 4}})
    kubectl.run("create", "-f", "-", stdin=json.dumps(manifest))
    patch = json.dumps([{"op": "add", "path": "/status", "value": STATUS.to_manifest()}])
    kubectl.run("patch", "tsb", "seen", "--subresource=status", "--type=json", "-p", patch)
    yield "seen"
    kubectl.run("delete", "tsb", "seen")


@pytest.mark.parametrize(
    ("path", "teaches"),
    [
        ("toolsandbox", ["one address", "catalogue: time"]),
        ("toolsandbox.spec.servers", ["one of the catalogue by its name, or an image of your own", "transport: Stdio"]),
        ("toolsandbox.spec.servers.scale.minReplicas", ["the first call is held until one is ready"]),
        ("toolsandbox.spec.servers.egress", ["absent: none but DNS"]),
        ("toolsandbox.spec.tools.backups.argumentMapping", ["$.query", "A literal is JSON"]),
        ("toolsandbox.spec.tools.retry", ["ENUM", "read-only or idempotent"]),
        ("toolsandbox.spec.sessions.recycle", ["Restart ends every process and empties the workspace"]),
        ("toolsandbox.spec.gateway.auth", ["no way to switch it off"]),
        ("toolsandbox.status.servers.reason", ["ENUM", "CrashLoop", "ContractFailed", "AtZero"]),
    ],
)
def test_kubectl_explain_teaches(kubectl: Kubectl, path: str, teaches: list[str]) -> None:
    text = " ".join(kubectl.run("explain", path).split())
    assert not [part for part in teaches if part not in text], text


@pytest.mark.parametrize("word", ["tsb", "toolsandbox", "toolsandboxes", "pinnace", "pn"])
def test_toolsandboxes_are_listed_by_every_name(kubectl: Kubectl, created: str, word: str) -> None:
    assert created in kubectl.run("get", word)


def test_the_columns_say_how_it_is(kubectl: Kubectl, created: str) -> None:
    header, row = kubectl.run("get", "tsb", created).splitlines()
    assert header.split() == ["NAME", "READY", "TOOLS", "SERVERS", "SESSIONS", "REASON", "AGE"]
    assert row.split()[:6] == ["seen", "True", "104", "15/16", "2/64", "Degraded"]
    wide = kubectl.run("get", "tsb", created, "-o", "wide").splitlines()[1].split()
    assert wide[-3:] == ["http://seen.api-tests.svc:8080", "2", "3"]


def test_kubectl_scale_sets_the_warm_pool(kubectl: Kubectl, created: str) -> None:
    kubectl.run("scale", "--replicas=7", "--current-replicas=4", f"tsb/{created}")
    stored = kubectl.get("tsb", created) or {}
    assert stored["spec"]["sessions"] == {**stored["spec"]["sessions"], "warm": 7, "max": 64}


def test_a_full_status_comes_back_as_it_was_written(kubectl: Kubectl, created: str) -> None:
    stored = kubectl.get("tsb", created) or {}
    assert stored["status"] == STATUS.to_manifest()
    assert ToolSandbox.from_manifest(stored).status == STATUS


def test_everything_can_change_while_it_serves(kubectl: Kubectl, created: str) -> None:
    servers = [{"name": "other", "catalogue": "calculator"}]
    spec = {"servers": servers, "sessions": None, "gateway": {"replicas": 3}, "suspend": True}
    kubectl.run("patch", "tsb", created, "--type=merge", "-p", json.dumps({"spec": spec}))
    stored = kubectl.get("tsb", created) or {}
    assert [each["name"] for each in stored["spec"]["servers"]] == ["other"]
