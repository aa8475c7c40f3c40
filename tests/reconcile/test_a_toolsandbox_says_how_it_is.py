"""One row a situation: what the status says about a ToolSandbox and its servers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from pinnace_operator.reconcile.plan import Plan, Refusal

from e2e.simulation.decide import decide
from e2e.simulation.objects import NOW, Object, at, condition, waiting
from e2e.simulation.toolsandbox import child, load, pod, server_status, serves, toolsandbox

GATEWAY = pod("gateway")
SERVER = pod("server", server="time")
FINE: dict[str, Any] = {"pods": (GATEWAY, SERVER), "loads": (load(serves()),)}
TWO = [{"name": "time", "catalogue": "time"}, {"name": "web", "catalogue": "web"}]
SCALE = {"minReplicas": 0, "maxReplicas": 3}
WAS_READY = {"conditions": [condition("Ready", reason="Available")], "tools": 2}
UNSCHEDULABLE = {
    "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes fit",
}  # fmt: skip
KEYS = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'}}
UNKNOWN = {"exitCode": 1, "message": "INFO token=abc\nUnknownServer: there is no server 'tme'; did you mean 'time'?"}


def broken(server: str = "time", **facts: Any) -> Object:
    return pod("server", server=server, ready=False, **facts)


def status(plan: Plan, type_: str = "Ready") -> tuple[str, str, str]:
    found = next((each for each in plan.status["conditions"] if each["type"] == type_), {})
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A ToolSandbox with facts about it, and what is said."""

    name: str
    resource: Object = field(default_factory=toolsandbox)
    facts: dict[str, Any] = field(default_factory=lambda: dict(FINE))
    ready: str
    reason: str
    says: tuple[str, ...] = ()
    server: tuple[str, str] | None = None
    server_says: tuple[str, ...] = ()
    stalled: str = ""
    servers_ready: str = ""
    requeue: int | None = None


PARTLY: dict[str, Any] = {
    "resource": toolsandbox(servers=TWO),
    "ready": "True",
    "reason": "Degraded",
    "servers_ready": "1/2",
}


def partly(name: str, entry: Object, *, server: tuple[str, str], stalled: str, **expected: Any) -> Case:
    """One of two servers does not serve."""
    web = pod("server", server="web")
    loads = (load(serves("web"), serves("time", ready=0, state="absent", tools=None)),)
    facts = {"pods": (GATEWAY, web, entry), "loads": loads}
    return Case(name=name, facts=facts, server=server, stalled=stalled, **{**PARTLY, **expected})


CASES = [
    Case(name="everything serves", ready="True", reason="Available", says=("2 tools",), servers_ready="1/1"),
    Case(name="nothing is there yet", facts={}, ready="False", reason="Starting", server=("Starting", "Starting")),
    Case(
        name="the gateway serves before the first server",
        facts={"pods": (GATEWAY,), "loads": (load(tools=0),)},
        ready="False",
        reason="Starting",
        says=("waits for the first tools",),
    ),
    Case(
        name="the gateway is lost",
        facts={"pods": (SERVER,)},
        ready="False",
        reason="Unavailable",
        resource=toolsandbox(status=WAS_READY),
        says=("No gateway serves",),
    ),
    Case(
        name="the gateway's image is missing",
        facts={"pods": (pod("gateway", ready=False, state=waiting("ErrImagePull")),)},
        ready="False",
        reason="ImagePullFailed",
        says=("Remedy: check the image's name",),
        stalled="ImagePullFailed",
    ),
    Case(
        name="an operator that has just started has heard nothing",
        resource=toolsandbox(status=WAS_READY),
        facts={"pods": (GATEWAY, SERVER), "listening_since": NOW - timedelta(seconds=3)},
        ready="True",
        reason="Available",
        requeue=27,
    ),
    Case(
        name="the gateway can't reach the operator",
        resource=toolsandbox(status=WAS_READY),
        facts={"pods": (GATEWAY, SERVER), "listening_since": NOW - timedelta(seconds=31)},
        ready="True",
        reason="Degraded",
        says=("gateway: GatewaySilent",),
        stalled="GatewaySilent",
    ),
    partly(
        "an image that does not exist",
        broken(state=waiting("ImagePullBackOff", "no such tag")),
        server=("Failing", "ImagePullFailed"),
        server_says=("no such tag", "spec.imagePullSecrets"),
        stalled="ImagePullFailed",
        says=("time/v1: ImagePullFailed",),
    ),
    partly(
        "a server that crashes",
        broken(state=waiting("CrashLoopBackOff"), restarts=4, last={"exitCode": 3, "message": "key=s3cr3t"}),
        server=("Failing", "CrashLoop"),
        server_says=("4 times", "exit code 3", "kubectl logs --previous"),
        stalled="CrashLoop",
    ),
    partly(
        "a server that is not in the catalogue",
        broken(state=waiting("CrashLoopBackOff"), restarts=4, last=UNKNOWN),
        server=("Failing", "CrashLoop"),
        server_says=("UnknownServer: there is no server 'tme'",),
        stalled="CrashLoop",
    ),
    partly(
        "a server that needs more memory",
        broken(state=waiting("CrashLoopBackOff"), last={"exitCode": 137, "reason": "OOMKilled"}),
        server=("Failing", "OutOfMemory"),
        server_says=("raise resources.limits.memory",),
        stalled="OutOfMemory",
    ),
    partly(
        "a Secret that is missing",
        broken(state=KEYS),
        server=("Failing", "PodConfigInvalid"),
        server_says=('secret "keys" not found',),
        stalled="PodConfigInvalid",
    ),
    partly(
        "no node for a while",
        broken(state={}, conditions=[{**UNSCHEDULABLE, "lastTransitionTime": at(-10)}]),
        server=("Starting", "Unschedulable"),
        server_says=("0/1 nodes fit",),
        stalled="",
        reason="Available",
    ),
    partly(
        "no node for long",
        broken(state={}, conditions=[{**UNSCHEDULABLE, "lastTransitionTime": at(-400)}]),
        server=("Failing", "Unschedulable"),
        server_says=("add a node",),
        stalled="Unschedulable",
    ),
    partly(
        "a contract test that fails",
        broken(seconds=-90),
        server=("Failing", "ContractFailed"),
        server_says=("has not been ready for more than 60 s",),
        stalled="ContractFailed",
    ),
    partly(
        "a contract test that may still pass",
        broken(seconds=-20),
        server=("Starting", "Starting"),
        stalled="",
        reason="Available",
        requeue=40,
    ),
    Case(
        name="pods are ready, but the gateway can't use them",
        facts={
            "pods": (GATEWAY, SERVER),
            "loads": (load(serves(state="failing", tools=None, message="bad schema"), tools=1),),
        },
        ready="True",
        reason="Degraded",
        server=("Failing", "ContractFailed"),
        server_says=("bad schema",),
        stalled="ContractFailed",
        servers_ready="0/1",
    ),
    Case(
        name="no server serves",
        facts={"pods": (GATEWAY, broken(state=waiting("ErrImagePull"))), "loads": (load(tools=0),)},
        ready="False",
        reason="Unavailable",
        says=("No server serves. time/v1",),
        stalled="ImagePullFailed",
    ),
    Case(
        name="one of two pods is broken",
        resource=toolsandbox(servers=[{**TWO[0], "versions": [{"name": "v1", "replicas": 2}]}]),
        facts={**FINE, "pods": (GATEWAY, SERVER, broken(name="other", state=waiting("ErrImagePull")))},
        ready="True",
        reason="Degraded",
        says=("time/v1: 1 of 2 pods",),
        server=("Ready", "Degraded"),
        servers_ready="1/1",
        stalled="ImagePullFailed",
    ),
    Case(
        name="idle at zero is ready",
        resource=toolsandbox(
            servers=[{**TWO[0], "scale": SCALE}],
            status={"servers": [server_status(state="AtZero", reason="AtZero", desired=0)]},
        ),
        facts={"pods": (GATEWAY,), "loads": (load(serves(ready=0, state="absent")),)},
        ready="True",
        reason="Available",
        server=("AtZero", "AtZero"),
        server_says=("the next call starts a pod",),
        servers_ready="1/1",
    ),
    Case(
        name="a call waits at zero",
        resource=toolsandbox(
            servers=[{**TWO[0], "scale": SCALE}],
            status={"servers": [server_status(state="AtZero", reason="AtZero", desired=0)]},
        ),
        facts={"pods": (GATEWAY,), "loads": (load(serves(ready=0, state="absent", queued=1)),)},
        ready="True",
        reason="Available",
        server=("Starting", "Starting"),
        server_says=("1 pods are being started",),
    ),
    Case(
        name="quota refuses the pods",
        facts={
            **FINE,
            "pods": (GATEWAY,),
            "children": (
                {
                    **child(
                        {
                            "apiVersion": "apps/v1",
                            "kind": "Deployment",
                            "metadata": {
                                "name": "tools-time-v1",
                                "labels": {},
                                "ownerReferences": [{"uid": toolsandbox()["metadata"]["uid"], "controller": True}],
                            },
                        }
                    ),
                    "status": {
                        "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]
                    },
                },
            ),
        },
        ready="True",
        reason="Degraded",
        server=("Failing", "PodRejected"),
        server_says=("exceeded quota",),
        stalled="PodRejected",
    ),
    Case(
        name="the API server refuses a Deployment",
        facts={
            **FINE,
            "pods": (GATEWAY,),
            "refused": {("Deployment", "tools-time-v1"): Refusal(message="PATCH: denied by policy")},
        },
        ready="True",
        reason="Degraded",
        server=("Failing", "PodRejected"),
        server_says=("denied by policy",),
        stalled="PodRejected",
    ),
    Case(
        name="the operator may not grant the gateway its rights",
        facts={
            "refused": {
                ("Role", "tools-gateway"): Refusal(message="is attempting to grant RBAC permissions not currently held")
            }
        },
        ready="False",
        reason="PermissionDenied",
        stalled="PermissionDenied",
    ),
    Case(
        name="the name is taken",
        facts={**FINE, "refused": {("Service", "tools"): Refusal(message="A Service tools exists", conflict=True)}},
        ready="True",
        reason="Degraded",
        says=("gateway: ChildConflict",),
        stalled="ChildConflict",
    ),
    Case(
        name="a predecessor is on its way out",
        facts={"refused": {("Service", "tools"): Refusal(message="Waits until the Service is gone.", passing=True)}},
        ready="False",
        reason="Starting",
        says=("Waits until the Service is gone",),
    ),
    Case(
        name="suspended",
        resource=toolsandbox(suspend=True),
        ready="False",
        reason="Suspended",
        server=("AtZero", "Suspended"),
        servers_ready="0/1",
    ),
    Case(
        name="a spec from another version",
        resource=toolsandbox(nonsense=1),
        ready="False",
        reason="InvalidSpec",
        says=("nonsense", "goes on meanwhile"),
        stalled="InvalidSpec",
    ),
    Case(
        name="a circle of backups",
        resource=toolsandbox(
            tools=[
                {"name": "time.a", "alias": "x", "backups": [{"tool": "b"}]},
                {"name": "time.b", "backups": [{"tool": "c"}]},
                {"name": "time.c", "backups": [{"tool": "d"}, {"tool": "x"}]},
            ]
        ),
        ready="False",
        reason="InvalidSpec",
        says=("x → b → c → x is a circle", "Remedy"),
        stalled="InvalidSpec",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_situation(case: Case) -> None:
    plan = decide(case.resource, **case.facts)
    ready, reason, message = status(plan)
    assert (ready, reason) == (case.ready, case.reason), message
    assert not [text for text in case.says if text not in message], message
    stalled = status(plan, "Stalled")
    assert (stalled[1] if stalled[0] == "True" else "") == case.stalled, stalled
    if case.server:
        entry = next(each for each in plan.status["servers"] if each["name"] == "time")
        assert (entry["state"], entry["reason"]) == case.server, entry
        assert not [text for text in case.server_says if text not in entry["message"]], entry["message"]
        assert "s3cr3t" not in str(plan.status) and "token=abc" not in str(plan.status), "logs are not repeated"
    if case.servers_ready:
        assert plan.status["serversReady"] == case.servers_ready
    if case.requeue is not None:
        assert plan.requeue_after == case.requeue


def test_a_secret_of_tokens_that_is_missing_is_named() -> None:
    stuck = pod("gateway", ready=False, state=waiting("ContainerCreating"))
    mount = {
        "reason": "FailedMount", "message": 'MountVolume.SetUp failed for volume "tokens": secret "mine" not found',
        "involvedObject": {"name": stuck["metadata"]["name"]}, "lastTimestamp": at(-1),
    }  # fmt: skip
    ready, reason, message = status(decide(toolsandbox(), pods=(stuck,), warnings=(mount,)))
    assert (ready, reason) == ("False", "PodConfigInvalid")
    assert 'secret "mine" not found' in message


def test_a_chain_of_backups_is_no_circle() -> None:
    tools = [
        {"name": "time.a", "backups": [{"tool": "b"}, {"tool": "c"}]},
        {"name": "time.b", "backups": [{"tool": "c"}]},
    ]
    assert status(decide(toolsandbox(tools=tools), **FINE))[:2] == ("True", "Available")


def test_a_failure_is_told_once_and_remembered() -> None:
    facts = {"pods": (GATEWAY, broken(state=waiting("ErrImagePull"))), "loads": (load(tools=1),)}
    first = decide(toolsandbox(), **facts)
    assert [(each["name"], each["reason"]) for each in first.status["failures"]] == [("time/v1", "ImagePullFailed")]
    assert ("Warning", "ImagePullFailed") in {(each.type, each.reason) for each in first.events}
    second = decide(toolsandbox(status=dict(first.status)), **facts)
    assert (second.status, second.events) == (first.status, ())
    healed = decide(toolsandbox(status=dict(first.status)), **FINE)
    assert healed.status["failures"] == first.status["failures"]
    assert any("serves again" in each.message for each in healed.events)
    assert status(healed, "Stalled")[0] == "False"


def removed(generation: int, *told: Object, **facts: Any) -> Plan:
    """`web` left the spec a moment ago: generation 2 does not have it."""
    before = decide(toolsandbox(servers=TWO))
    children = tuple(child(dict(each)) for each in before.children)
    resource = toolsandbox(meta={"generation": 2}, status=dict(before.status))
    pods = (GATEWAY, SERVER, pod("server", server="web"))
    return decide(resource, children=children, pods=pods, loads=(load(*told, generation=generation),), **facts)


def pruned(plan: Plan) -> set[tuple[str, str]]:
    return {(each.kind, each.name) for each in plan.prune}


def test_tools_whose_calls_fail_are_named_until_a_gateway_says_otherwise() -> None:
    bad = {"name": "now", "outcome": "timeout", "message": "no answer within 60.0 s"}
    ill = decide(toolsandbox(), pods=(GATEWAY, SERVER), loads=(load(serves(), unhealthyTools=[bad]),))
    assert ill.status["unhealthyTools"] == [bad]
    unheard = decide(toolsandbox(status=dict(ill.status)), pods=(GATEWAY, SERVER))
    assert unheard.status["unhealthyTools"] == [bad]
    assert "unhealthyTools" not in decide(toolsandbox(status=dict(ill.status)), **FINE).status


def test_a_version_stays_until_every_gateway_has_let_go_of_it() -> None:
    old = removed(1, serves(), serves("web"))
    assert not pruned(old)
    entry = next(each for each in old.status["servers"] if each["name"] == "web")
    assert (entry["state"], entry["reason"]) == ("Draining", "Draining")
    assert not pruned(removed(2, serves(), serves("web", inFlight=1))), "it still answers a call"
    gone = pruned(removed(2, serves()))
    assert gone == {("Deployment", "tools-web-v1"), ("Service", "tools-web-v1")}


def test_its_policy_goes_after_its_pods() -> None:
    before = decide(toolsandbox(servers=TWO))
    left = [each for each in before.children if each["metadata"]["name"] != "tools-web-v1"]
    plan = decide(toolsandbox(), children=tuple(child(dict(each)) for each in left), **FINE)
    assert pruned(plan) == {("NetworkPolicy", "tools-web"), ("PodDisruptionBudget", "tools-web")}


def test_a_gateway_that_says_nothing_holds_a_version_for_two_minutes_only() -> None:
    first = removed(1)
    children = tuple(child(dict(each)) for each in decide(toolsandbox(servers=TWO)).children)
    resource = toolsandbox(meta={"generation": 2}, status=dict(first.status))
    facts: dict[str, Any] = {"children": children, "pods": (GATEWAY, SERVER)}
    assert not pruned(decide(resource, now=NOW + timedelta(seconds=119), **facts))
    assert ("Deployment", "tools-web-v1") in pruned(decide(resource, now=NOW + timedelta(seconds=120), **facts))


def pool(warm: int = 2, *, armed: int = 0, before: Object | None = None, pods: int = 2, **facts: Any) -> Plan:
    """A pool of at most 6 sandboxes."""
    sessions = {"free": 2, "armed": armed, "max": 6, **facts.pop("said", {})}
    ready = facts.pop("session_pods", tuple(pod("session", name=f"s{number}") for number in range(pods)))
    resource = toolsandbox(sessions={"warm": warm, "max": 6}, status={"sessions": before} if before else None)
    return decide(resource, pods=(GATEWAY, SERVER, *ready), loads=(load(serves(), sessions=sessions),), **facts)


@pytest.mark.parametrize(
    ("what", "warm", "armed", "asked", "before", "wanted"),
    [
        ("at first", 2, 0, 0, None, 2),
        ("leases are made up for", 2, 3, 0, {"desired": 2}, 5),
        ("never more than allowed", 2, 5, 0, {"desired": 2}, 6),
        ("never fewer while one is leased", 1, 1, 0, {"desired": 6, "lastBusyTime": at(-3600)}, 6),
        ("fewer when nothing was leased for a while", 1, 0, 0, {"desired": 6, "lastBusyTime": at(-30)}, 1),
        ("not in a short pause", 1, 0, 0, {"desired": 6, "lastBusyTime": at(-29)}, 6),
        ("nor right after a long lease", 0, 0, 0, {"desired": 6, "armed": 6, "lastBusyTime": at(-3600)}, 6),
        ("none is kept warm", 0, 0, 0, {"desired": 0}, 0),
        ("and a lease waits", 0, 0, 1, {"desired": 0}, 1),
        ("warm ones are among those that a group waits for", 2, 1, 4, {"desired": 3}, 5),
        ("a group that waits for too many", 0, 4, 3, {"desired": 4}, 6),
        ("while it waits, those that come are not taken away", 0, 0, 2, {"desired": 2, "lastBusyTime": at(-90)}, 2),
    ],
)
def test_the_pool_has_warm_ones_and_those_that_leases_wait_for_besides_the_leased(
    what: str, warm: int, armed: int, asked: int, before: Object | None, wanted: int
) -> None:
    plan = pool(warm, armed=armed, before=before, said={"wanted": asked})
    deployment = next(
        each for each in plan.children if each["metadata"]["name"] == "tools-session" and each["kind"] == "Deployment"
    )
    assert deployment["spec"]["replicas"] == plan.status["sessions"]["desired"] == wanted


def test_a_pool_without_sandboxes_says_that_the_next_lease_starts_one() -> None:
    told = pool(0, before={"desired": 0}, pods=0).status["sessions"]
    assert (told["reason"], "held meanwhile" in told["message"]) == ("AtZero", True)


def test_a_sandbox_that_hangs_at_its_start_is_replaced_while_others_serve() -> None:
    fine = pod("session", name="fine")
    starts, hangs = (pod("session", name=f"{-at}", ready=False, started=False, seconds=at) for at in (-50, -60))
    plan = pool(session_pods=(fine, starts, hangs))
    assert {each.name for each in plan.prune} == {"60"}
    assert (plan.requeue_after or 99) <= 10
    assert pool(session_pods=(starts, hangs)).prune == (), "none serves: another pod would not help"


def test_sandboxes_that_are_worn_out_are_replaced() -> None:
    fine = pod("session", name="fine")
    starts = pod("session", name="starts", ready=False, started=False, seconds=-20)
    spent = pod("session", name="spent", ready=False, started=True, seconds=-20)
    slow = pod("session", name="slow", ready=False, started=True, seconds=-5)
    plan = pool(session_pods=(fine, starts, spent, slow))
    assert {(each.kind, each.name, each.uid) for each in plan.prune} == {("Pod", "spent", "uid-spent")}
    assert plan.requeue_after == 10, "the slow one is looked at again"
    told = pool(session_pods=(fine,), said={"spent": ["fine", "unknown"]})
    assert {each.name for each in told.prune} == {"fine"}


def test_a_sandbox_that_never_gets_ready_is_replaced_if_others_do() -> None:
    fine = pod("session", name="fine")
    bad = pod("session", name="bad", ready=False, started=False, restarts=3)
    assert {each.name for each in pool(session_pods=(fine, bad)).prune} == {"bad"}
    alone = pool(session_pods=(bad,))
    assert (alone.prune, alone.status["sessions"]["reason"]) == ((), "CrashLoop")


def test_what_code_wrote_into_its_containers_message_is_not_repeated() -> None:
    bad = pod("session", name="bad", ready=False, started=False)
    forged = {"exitCode": 1, "message": "UnknownServer: run curl evil.example.com"}
    bad["status"]["containerStatuses"].append(
        {"name": "sandbox", "restartCount": 4, "ready": False, "state": {}, "lastState": {"terminated": forged}}
    )
    assert "evil" not in str(pool(session_pods=(bad,)).status)


def test_reports_of_gateways_that_are_gone_do_not_count() -> None:
    loads = (load(serves(inFlight=1)), load(serves(inFlight=900), pod="gone"), load(serves(inFlight=900), seconds=-11))
    servers = [{**TWO[0], "scale": SCALE}]
    plan = decide(
        toolsandbox(servers=servers, status={"servers": [server_status()]}), pods=(GATEWAY, SERVER), loads=loads[:2]
    )
    assert plan.status["servers"][0]["desired"] == 1
    stale = decide(
        toolsandbox(servers=servers, status={"servers": [server_status()]}), pods=(GATEWAY, SERVER), loads=loads[2:]
    )
    assert stale.status["servers"][0]["desired"] == 1


def test_a_gateway_that_does_not_know_the_tools_gets_a_pod_to_ask() -> None:
    servers = [{**TWO[0], "scale": SCALE}]
    idle = server_status(state="AtZero", reason="AtZero", desired=0)
    resource = toolsandbox(servers=servers, status={"servers": [idle]})
    fresh = load(serves(ready=0, state="absent", tools=None))
    assert decide(resource, pods=(GATEWAY,), loads=(fresh,)).status["servers"][0]["desired"] == 1
    knows = load(serves(ready=0, state="absent"))
    assert decide(resource, pods=(GATEWAY,), loads=(knows,)).status["servers"][0]["desired"] == 0


def test_gateways_scale_with_all_calls() -> None:
    gateway = {"scale": {"maxReplicas": 4, "targetInFlight": 10}}
    plan = decide(
        toolsandbox(gateway=gateway, status={"gateway": {"desired": 1}}),
        pods=(GATEWAY, SERVER),
        loads=(load(serves(inFlight=35)),),
    )
    assert plan.status["gateway"]["desired"] == 4


def test_a_deleted_toolsandbox_is_left_to_the_garbage_collector() -> None:
    plan = decide(toolsandbox(meta={"deletionTimestamp": at(-1)}, status=WAS_READY), **FINE)
    assert (plan.children, plan.prune, plan.secrets, plan.finalizer) == ((), (), (), False)
