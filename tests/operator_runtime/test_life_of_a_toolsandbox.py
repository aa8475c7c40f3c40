"""From a ToolSandbox to its objects and back to the status, on the real API server."""

from __future__ import annotations

import base64
import itertools
import os
import signal
import time
from collections.abc import Iterator

import pytest

from e2e.faults.api import eventually
from e2e.faults.cluster import Hands
from e2e.faults.operator_process import OperatorProcess, Record
from e2e.faults.proxy import FaultProxy
from e2e.faults.toolsandbox import GatewayReporter, SandboxHands, pod_token, serves

WEB = {
    "name": "web", "catalogue": "web", "versions": [{"name": "v1"}],
    "scale": {"minReplicas": 0, "maxReplicas": 4, "targetInFlight": 2, "cooldownSeconds": 5},
}  # fmt: skip
TIME = {"name": "time", "catalogue": "time"}
WHOLE = {
    ("ConfigMap", "tools-gateway"), ("ServiceAccount", "tools-gateway"), ("Role", "tools-gateway"),
    ("RoleBinding", "tools-gateway"), ("Deployment", "tools-gateway"), ("Service", "tools"),
    ("PodDisruptionBudget", "tools-gateway"), ("NetworkPolicy", "tools-gateway"), ("NetworkPolicy", "tools-default"),
    ("Deployment", "tools-time-v1"), ("Service", "tools-time-v1"), ("NetworkPolicy", "tools-time"),
    ("PodDisruptionBudget", "tools-time"), ("Deployment", "tools-session"), ("Service", "tools-session"),
    ("NetworkPolicy", "tools-session"), ("PodDisruptionBudget", "tools-session"),
}  # fmt: skip


@pytest.fixture
def sandbox(hands: Hands) -> SandboxHands:
    return SandboxHands(hands)


@pytest.fixture
def gateway(operator: OperatorProcess, sandbox: SandboxHands) -> Iterator[GatewayReporter]:
    """The gateway's pod of a ToolSandbox with two servers and sandboxes, which serves and has said so."""
    sandbox.submit(TIME, WEB, sessions={"warm": 2, "max": 4})
    sandbox.wait_child("ServiceAccount", "tools-gateway")
    reporter = GatewayReporter.connect(sandbox, sandbox.run("tools-gateway"), operator.progress_port)
    for name in ("tools-time-v1", "tools-web-v1"):
        sandbox.run(name)
    for number in range(2):
        sandbox.run("tools-session", suffix=str(number))
    assert reporter.post(serves("time"), serves("web")).status_code == 200
    sandbox.wait_condition("True", "Available")
    yield reporter
    reporter.client.close()


def test_everything_that_a_toolsandbox_needs_is_made_and_is_its_own(
    operator: OperatorProcess, sandbox: SandboxHands
) -> None:
    resource = sandbox.submit(TIME, sessions={"warm": 1})
    eventually("all children", lambda: sandbox.children() == WHOLE)
    uid = resource["metadata"]["uid"]
    for kind, name in WHOLE:
        owner = (sandbox.child(kind, name) or {})["metadata"]["ownerReferences"][0]
        assert (owner["uid"], owner["controller"]) == (uid, True)
    for name, key in (("tools-keys", "key"), ("tools-tokens", "default")):
        secret = eventually(f"Secret {name}", lambda name=name: sandbox.secret(name))  # type: ignore[misc]  # a lambda's default
        assert len(base64.b64decode(secret["data"][key])) >= 32
        assert secret["data"][key] not in operator.log.read_text()
    assert sandbox.configuration()["uid"] == uid
    sandbox.wait_condition("False", "Starting")


def test_reports_of_a_gateway_make_it_ready(gateway: GatewayReporter, sandbox: SandboxHands) -> None:
    status = sandbox.status()
    assert (status["tools"], status["serversReady"], status["sessions"]["inUse"]) == (4, "2/2", "0/4")
    assert status["endpoint"] == f"http://tools.{sandbox.hands.namespace}.svc:8080"
    scale = sandbox.hands.api.get(f"{sandbox.path}/scale") or {}
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (2, 2)
    sandbox.hands.api.merge(f"{sandbox.path}/scale", {"spec": {"replicas": 3}})
    eventually("the pool grows", lambda: _replicas(sandbox, "tools-session") == 3)


def test_a_server_is_plugged_in_and_out_without_losing_what_it_still_answers(
    gateway: GatewayReporter, sandbox: SandboxHands, record: Record
) -> None:
    started = time.monotonic()
    sandbox.edit(servers=[TIME, WEB, {"name": "calc", "catalogue": "calculator"}])
    eventually("gateways are told", lambda: ("calc", "v1") in sandbox.configured(), poll=0.01)
    plugged = time.monotonic() - started
    sandbox.wait_child("Deployment", "tools-calc-v1")

    gateway.post(serves("time"), serves("web", inFlight=3), serves("calc", ready=0, state="starting"))
    started = time.monotonic()
    sandbox.edit(servers=[TIME])
    eventually("gateways are told", lambda: sandbox.configured() == {("time", "v1")}, poll=0.01)
    unplugged = time.monotonic() - started
    eventually("it is drained", lambda: sandbox.server("web").get("state") == "Draining")
    assert gateway.post(serves("time"), serves("web", inFlight=1)).status_code == 200
    eventually("calc, which has no calls, is gone", lambda: sandbox.child("Deployment", "tools-calc-v1") is None)
    assert sandbox.child("Deployment", "tools-web-v1"), "it answers a call"
    gateway.post(serves("time"))
    eventually("web is gone", lambda: sandbox.child("Deployment", "tools-web-v1") is None)
    eventually("and all that was its own", lambda: not {n for _, n in sandbox.children() if n.startswith("tools-web")})
    record("hot plug: edit → configuration", plug_ms=int(plugged * 1000), unplug_ms=int(unplugged * 1000))


def test_an_idle_server_goes_to_zero_and_a_call_that_waits_starts_it_again(
    gateway: GatewayReporter, sandbox: SandboxHands
) -> None:
    def idle() -> bool:
        gateway.post(serves("time"), serves("web"))
        return _replicas(sandbox, "tools-web-v1") == 0

    eventually("it is idle for its cool-down", idle, poll=0.5)
    sandbox.delete_pod("tools-web-v1-0")
    eventually("people can read it", lambda: sandbox.server("web").get("state") == "AtZero")
    assert sandbox.condition() == ("True", "Available")
    gateway.post(serves("time"), {"name": "web", "version": "v1", "state": "absent", "ready": 0, "queued": 5})
    eventually("as many as the calls need", lambda: _replicas(sandbox, "tools-web-v1") == 3)
    eventually("people can read why", lambda: any("0 → 3 pods (5 calls" in text for _, text in sandbox.events()))


def test_a_failing_server_does_not_make_the_rest_unready(gateway: GatewayReporter, sandbox: SandboxHands) -> None:
    sandbox.delete_pod("tools-time-v1-0")
    sandbox.run(
        "tools-time-v1", ready=False, state={"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}
    )
    gateway.post(serves("time", ready=0, state="absent"), serves("web"), tools=2)
    sandbox.wait_condition("True", "Degraded")
    entry = sandbox.server("time")
    assert (entry["state"], entry["reason"]) == ("Failing", "ImagePullFailed")
    assert "no such tag" in entry["message"] and "Remedy" in entry["message"]
    assert sandbox.status()["serversReady"] == "1/2"
    assert [each["name"] for each in sandbox.status()["failures"]] == ["time/v1"]
    assert sandbox.condition("Stalled") == ("True", "ImagePullFailed")


def test_only_the_gateway_itself_may_report(gateway: GatewayReporter, sandbox: SandboxHands) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    sandbox.hands.api.apply(f"/api/v1/namespaces/{sandbox.hands.namespace}/serviceaccounts/default", account)
    other = sandbox.run("tools-time-v1", suffix="other")
    server = pod_token(sandbox.hands, other, "default")
    assert gateway.post(token=server).status_code == 403
    assert gateway.post(pod="another").status_code == 403
    assert gateway.post(uid="another").status_code == 403
    assert gateway.post(token="eyJhbGciOiJub25lIn0.e30.").status_code == 401
    answer = gateway.post(generation="many")
    assert (answer.status_code, "generation" in answer.text) == (400, True)


def test_children_deleted_by_hand_come_back(
    operator: OperatorProcess, sandbox: SandboxHands, record: Record
) -> None:  # fmt: skip
    sandbox.submit(TIME, sessions={"warm": 1})
    eventually("all children", lambda: sandbox.children() == WHOLE)
    for kind, name in sorted(WHOLE):
        sandbox.delete_child(kind, name)
    eventually("all are back", lambda: sandbox.children() == WHOLE)
    record("every child of a ToolSandbox deleted by hand", deletions=len(WHOLE))


def test_an_unchanged_toolsandbox_is_not_written_again(
    operator: OperatorProcess, sandbox: SandboxHands, proxy: FaultProxy
) -> None:
    sandbox.submit(TIME, sessions={"warm": 1})
    eventually("all children", lambda: sandbox.children() == WHOLE)
    sandbox.wait_condition("False", "Starting")
    written, passes = len(proxy.writes), operator.metric("pinnace_reconcile_seconds_count")
    eventually("two resyncs more", lambda: operator.metric("pinnace_reconcile_seconds_count") >= passes + 2)
    assert [str(each.call) for each in proxy.writes[written:]] == []
    paths = {str(each.call) for each in proxy.writes if "toolsandboxes" in each.call.path}
    assert paths == {f"PATCH {sandbox.path}/status"}


def test_an_object_of_somebody_else_is_left_alone(operator: OperatorProcess, sandbox: SandboxHands) -> None:
    spec = {"ports": [{"port": 80}], "selector": {"app": "theirs"}}
    path = f"/api/v1/namespaces/{sandbox.hands.namespace}/services"
    sandbox.hands.api.create(path, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "tools"}, "spec": spec})
    sandbox.submit(TIME)
    sandbox.wait_condition("True", "ChildConflict", "Stalled")
    assert (sandbox.child("Service", "tools") or {})["spec"]["selector"] == {"app": "theirs"}
    assert sandbox.child("Deployment", "tools-time-v1"), "the rest is made"
    sandbox.delete_child("Service", "tools")
    eventually("it takes the name", lambda: (sandbox.child("Service", "tools") or {}).get("metadata", {}).get("labels"))
    eventually("nobody has to act", lambda: sandbox.condition("Stalled")[0] == "False")


def test_sandboxes_whose_lease_is_over_are_replaced(gateway: GatewayReporter, sandbox: SandboxHands) -> None:
    spent = {"free": 1, "armed": 0, "max": 4, "spent": ["tools-session-1"]}
    gateway.post(serves("time"), serves("web"), sessions=spent)
    eventually("the pod is deleted", lambda: "tools-session-1" not in sandbox.living_pods())
    assert "tools-session-0" in sandbox.living_pods()


def test_suspended_it_has_no_pods_and_keeps_its_address(gateway: GatewayReporter, sandbox: SandboxHands) -> None:
    sandbox.edit(suspend=True)
    sandbox.wait_condition("False", "Suspended")
    names = ("tools-gateway", "tools-time-v1", "tools-web-v1", "tools-session")
    eventually("no pods are wanted", lambda: all(_replicas(sandbox, name) == 0 for name in names))
    assert sandbox.child("Service", "tools") and sandbox.secret("tools-keys")
    sandbox.edit(suspend=False)
    eventually("they are again", lambda: [_replicas(sandbox, name) for name in names] == [1, 1, 1, 2])


def test_a_circle_of_backups_is_refused_and_what_was_served_goes_on(
    gateway: GatewayReporter, sandbox: SandboxHands
) -> None:
    before = sandbox.configuration()
    circle = [{"name": "web.a", "backups": [{"tool": "b"}]}, {"name": "web.b", "backups": [{"tool": "a"}]}]
    sandbox.edit(tools=circle, servers=[WEB])
    sandbox.wait_condition("False", "InvalidSpec")
    message = next(each["message"] for each in sandbox.status()["conditions"] if each["type"] == "Ready")
    assert "a → b → a" in message and "Remedy" in message
    assert sandbox.configuration() == before
    assert sandbox.child("Deployment", "tools-time-v1")
    sandbox.edit(tools=[])
    eventually("it is served again", lambda: sandbox.configured() == {("web", "v1")})


def test_killed_at_writes_of_a_toolsandbox_it_goes_on_as_if_nothing_was(
    operator: OperatorProcess, proxy: FaultProxy, sandbox: SandboxHands, hands: Hands, record: Record
) -> None:
    eventually("the CA is stored", hands.ca)
    sandbox.submit(TIME, sessions={"warm": 1})
    eventually("all children", lambda: sandbox.children() == WHOLE)
    kills = 0
    for target in itertools.count(5, 12):
        fired: list[int] = []

        def kill(number: int, target: int = target, fired: list[int] = fired) -> bool:
            if number == target and not fired and operator.process:
                fired.append(number)
                os.kill(operator.process.pid, signal.SIGKILL)
                return False
            return True

        # A new process remembers nothing, so it applies everything again: as many writes as at first.
        operator.kill()
        sandbox.edit(sessions={"warm": 2 + kills, "max": 8})
        proxy.writes.clear()
        proxy.before = kill
        _start(operator, hands)
        eventually("a kill, or a status about the edit", lambda fired=fired: fired or sandbox.observed())  # type: ignore[misc]  # a lambda's default
        proxy.before = lambda _number: True
        if not fired:
            break
        operator.kill()
        _start(operator, hands)
        eventually("the status is about the edit", sandbox.observed)
        kills += 1
    assert sandbox.children() == WHOLE
    assert _replicas(sandbox, "tools-session") == 2 + kills
    assert kills >= 2, [str(write.call) for write in proxy.writes]
    said = sandbox.events()
    assert len(set(said)) == len(said), said
    record("killed -9 before every twelfth write of a ToolSandbox", kills=kills)


def test_what_is_left_of_a_deleted_toolsandbox_is_removed(
    operator: OperatorProcess, sandbox: SandboxHands, hands: Hands, record: Record
) -> None:
    sandbox.submit(TIME, sessions={"warm": 1})
    eventually("all children", lambda: sandbox.children() == WHOLE)
    hands.api.delete(sandbox.path)  # and no garbage collector runs here
    kinds = {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"}
    eventually("no pods, addresses and policies are left", lambda: not {k for k, _ in sandbox.children()} & kinds)
    record(
        "ToolSandbox deleted without a garbage collector",
        ghosts_pruned=int(operator.metric("pinnace_ghosts_pruned_total")),
    )


def _replicas(sandbox: SandboxHands, deployment: str) -> int:
    return int((sandbox.child("Deployment", deployment) or {"spec": {"replicas": -1}})["spec"]["replicas"])


def _start(operator: OperatorProcess, hands: Hands) -> None:
    """Start it as if the Lease of the one before had run out."""
    hands.delete_lease()
    operator.start()
