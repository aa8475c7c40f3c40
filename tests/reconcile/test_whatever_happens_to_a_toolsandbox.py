"""Properties of the decisions about a ToolSandbox, whatever happens in the world around it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pinnace_operator.api.conditions import ConditionType, find
from pinnace_operator.api.toolsandbox_status import ToolSandboxStatus

from e2e.simulation.decide import decide
from e2e.simulation.objects import Object
from e2e.simulation.toolsandbox import child, load, pod, server_status, serves, toolsandbox
from e2e.simulation.toolsandbox_world import SCALE, World

STEPS: dict[str, Any] = {
    "controllers": lambda world, _: world.controllers(),
    "a gateway reads": lambda world, n: world.sync_one(n),
    "calls": lambda world, n: world.call(n),
    "answers": lambda world, _: world.answer(),
    "reports": lambda world, _: world.report(),
    "edit": lambda world, n: world.edit(n),
    "warm": lambda world, n: world.warm(n),
    "suspend": lambda world, _: world.suspend(True),
    "resume": lambda world, _: world.suspend(False),
    "spoil": lambda world, _: world.spoil(),
    "repair": lambda world, _: world.repair(),
    "delete a child": lambda world, n: world.delete_child(n),
    "time": lambda world, n: world.pass_time(n),
}
OFTEN = [*STEPS, *["controllers", "a gateway reads", "calls", "reports"] * 4, *["edit"] * 3]
worlds = st.builds(World.create, sessions=st.booleans(), gateways=st.integers(1, 3))
stories = st.lists(st.tuples(st.sampled_from(OFTEN), st.integers(0, 60)), min_size=8, max_size=30)


def check(world: World) -> ToolSandboxStatus:
    """What must hold after every reconcile."""
    assert not world.broken, world.broken
    status = ToolSandboxStatus.from_manifest(world.resource["status"])
    assert status.observed_generation == world.resource["metadata"]["generation"]
    assert len(status.failures) <= 10
    for (kind, _), each in world.children.items():
        if kind == "Deployment" and each["metadata"]["labels"].get("pinnace.dev/server") == "web":
            assert 0 <= each["spec"]["replicas"] <= SCALE["maxReplicas"]
    session = world.children.get(("Deployment", "tools-session"))
    assert session is None or session["spec"]["replicas"] <= 6
    return status


@settings(max_examples=60, deadline=None)
@given(worlds, stories)
def test_no_story_removes_a_version_that_gets_calls_and_every_story_comes_to_rest(
    world: World, story: list[tuple[str, int]]
) -> None:
    world.settle()
    check(world)
    for name, number in story:
        STEPS[name](world, number)
        world.settle()
        check(world)
    # Left in peace: everything that the spec names serves, and nothing else is there.
    world.suspend(False)
    world.repair()
    for _ in range(6):
        world.settle()
        world.controllers()
        world.answer()
        for gateway in world.gateways:
            world.sync(gateway)
        world.report()
        world.pass_time(1)
    world.settle()
    status = check(world)
    ready = find(status.conditions, ConditionType.READY)
    assert ready and ready.status == "True", world.resource["status"]
    deployed = {name for kind, name in world.children if kind == "Deployment"}
    servers = {
        f"tools-{each['name']}-{version['name']}"
        for each in world.resource["spec"]["servers"]
        for version in each["versions"]
    }
    others = {"tools-gateway", *(["tools-session"] if "sessions" in world.resource["spec"] else [])}
    assert deployed == servers | others
    assert {"tools-keys", "tools-tokens"} <= world.secrets


names = st.sampled_from(["time", "web", "gone"])
versions = st.sampled_from(["v1", "v2"])
entries = st.lists(
    st.builds(
        server_status, names, versions, state=st.sampled_from(["Ready", "Failing", "Draining", "AtZero", "Odd"]),
        reason=st.sampled_from(["Available", "CrashLoop", "Suspended", "Unheard"]), desired=st.integers(-1, 9),
        lastBusyTime=st.none() | st.just("2026-01-01T11:00:00Z"),
    ).map(lambda entry: {name: value for name, value in entry.items() if value is not None}),
    max_size=4, unique_by=lambda entry: (entry["name"], entry["version"]),
)  # fmt: skip
statuses = st.none() | st.builds(
    lambda servers, tools, sessions: {
        "servers": servers, "tools": tools, **({"sessions": sessions} if sessions else {})
    },
    entries, st.integers(0, 9), st.none() | st.just({"desired": 5, "armed": 1}) | st.just({"desired": "many"}),
)  # fmt: skip
states = st.sampled_from(
    [
        {"running": {"startedAt": "2026-01-01T11:00:00Z"}}, {"waiting": {"reason": "ImagePullBackOff"}},
        {"waiting": {"reason": "CrashLoopBackOff"}}, {"waiting": {"reason": "ContainerCreating"}}, {"running": {}}, {},
        {"terminated": {"exitCode": 1}},
    ]
)  # fmt: skip
pods = st.builds(
    pod, st.sampled_from(["gateway", "server", "session"]), server=names, version=versions,
    name=st.sampled_from(["tools-gateway-0", "a", "b", "c"]), ready=st.booleans(), deleting=st.booleans(), state=states,
    restarts=st.integers(0, 5), started=st.booleans(),
    last=st.none() | st.just({"exitCode": 1, "message": "UnknownServer: no server abc"}),
)  # fmt: skip
loads = st.builds(
    lambda calls, state, generation, seconds, armed: load(
        serves(inFlight=calls, state=state), generation=generation, seconds=seconds,
        sessions={"free": 1, "armed": armed, "max": 9, "spent": ["a"]},
    ),
    st.integers(0, 50), st.sampled_from(["ready", "failing", "absent"]), st.integers(0, 3), st.integers(-60, 0),
    st.integers(0, 9),
)  # fmt: skip
resources = st.builds(
    lambda status, meta, **spec: toolsandbox(
        status=status, meta=meta, **{name: value for name, value in spec.items() if value is not None}
    ),
    statuses,
    st.sampled_from([{}, {"deletionTimestamp": "2026-01-01T12:00:00Z"}]),
    servers=st.none() | st.just([{"name": "web", "catalogue": "web", "scale": dict(SCALE)}]),
    sessions=st.none() | st.just({"warm": 1, "max": 3}), suspend=st.none() | st.booleans(),
    nonsense=st.none() | st.just(1), gateway=st.none() | st.just({"scale": {"maxReplicas": 3}}),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(resources, st.lists(pods, max_size=5), st.none() | loads)
def test_any_observation_has_a_plan_that_is_the_same_the_second_time(
    resource: Object, seen: list[Object], told: Any
) -> None:
    facts: dict[str, Any] = {"pods": tuple(seen), "loads": (told,) if told else ()}
    first = decide(resource, **facts)
    facts["children"] = tuple(child(dict(each)) for each in first.children)
    again = decide({**resource, "status": dict(first.status)}, **facts)
    once_more = decide({**resource, "status": dict(again.status)}, **facts)
    assert (again.children, again.status) == (first.children, first.status)
    assert (once_more.children, once_more.status, once_more.events) == (again.children, again.status, ())
