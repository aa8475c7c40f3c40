# ruff: noqa: E501 -- strategies are tables
"""Properties of the decisions, whatever is observed and whatever happens in the world around a job."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pinnace_operator.api.conditions import Reason
from pinnace_operator.api.merge_status import MergeJobStatus
from pinnace_operator.api.status import JobStatus

from e2e.simulation.decide import decide
from e2e.simulation.objects import (
    OUTPUT,
    Object,
    checkpoint,
    condition,
    ended,
    jobset,
    mergejob,
    outcome,
    pod,
    report,
    sftjob,
    started,
    waiting,
)
from e2e.simulation.rlrun import rlrun
from e2e.simulation.world import CRASH, PERMANENT, World

STEPS: dict[str, Any] = {
    "controllers": lambda world, _: world.controllers(),
    "stop pods": lambda world, _: world.stop_pods(),
    "crash": lambda world, n: world.fail(n, CRASH),
    "permanent failure": lambda world, n: world.fail(n, PERMANENT),
    "checkpointed": lambda world, n: world.fail(n, 85),
    "kill a pod": lambda world, n: world.kill(n),
    "suspend": lambda world, _: world.suspend(True),
    "resume": lambda world, _: world.suspend(False),
    "raise backoffLimit": lambda world, _: world.raise_backoff(),
    "time to live": lambda world, _: world.set_ttl(),
    "delete the JobSet": lambda world, _: world.delete_jobset_by_hand(),
    "delete a suite": lambda world, _: world.delete_suite_by_hand(),
    "delete the job": lambda world, _: world.delete_job(),
    "quota": lambda world, _: world.set_quota(True),
    "no quota": lambda world, _: world.set_quota(False),
    "input": lambda world, _: world.finish_upstream(),
    "report": lambda world, n: world.post_report(n),
    "time": lambda world, n: world.pass_time(n),
}
# Deletion has a test of its own: a job that is gone has nothing to show.
OFTEN = [name for name in STEPS if name != "delete the job"] + ["controllers"] * 8 + ["stop pods"] * 3
worlds = st.builds(
    World.create, kind=st.sampled_from(["SFTJob", "MergeJob", "sweep"]), nodes=st.integers(1, 3), waits=st.booleans(), queued=st.booleans(),
    backoff=st.integers(0, 2), delete=st.booleans(),
)  # fmt: skip
stories = st.lists(st.tuples(st.sampled_from(OFTEN), st.integers(0, 40)), min_size=8, max_size=40)


def check(world: World, final: str | None) -> str | None:
    """What must hold after every reconcile; returns the final state if there is one."""
    assert not world.broken, world.broken
    merges = world.job["kind"] == "MergeJob"
    status = (MergeJobStatus if merges else JobStatus).from_manifest(world.job["status"])
    assert all(each.reason in Reason for each in status.conditions)
    assert len({each.type for each in status.conditions}) == len(status.conditions)
    if final:
        assert status.state == final, f"{final} became {status.state}"
    assert not ({"Complete", "Failed"} <= {each.type for each in status.conditions if each.status == "True"})
    return str(status.state) if status.state in ("Complete", "Failed") else None


@settings(max_examples=400, deadline=None)
@given(worlds, stories)
def test_no_story_makes_two_gangs_and_every_story_can_end(world: World, story: list[tuple[str, int]]) -> None:
    world.settle()
    final = check(world, None)
    for name, number in story:
        STEPS[name](world, number)
        world.settle()
        final = check(world, final)
    # Left in peace, the job comes to its end.
    world.suspend(False)
    world.set_quota(True)
    world.finish_upstream()
    for _ in range(40):
        world.pass_time(40)
        world.stop_pods()
        world.controllers()
        world.settle()
        final = check(world, final)
        if final:
            break
    assert final in ("Complete", "Failed"), world.job["status"]


@settings(max_examples=150, deadline=None)
@given(worlds, stories, st.integers(0, 40))
def test_a_job_that_is_deleted_goes_away(world: World, story: list[tuple[str, int]], when: int) -> None:
    for number, (name, value) in enumerate([*story, *[("controllers", 0)] * 5]):
        if number == when:
            break
        STEPS[name](world, value)
        world.settle()
    gangs = world.gangs
    world.delete_job()
    for _ in range(20):
        if world.gone:
            break
        world.pass_time(400)
        world.stop_pods()
        world.controllers()
        world.settle()
    assert world.gone
    assert world.gangs - gangs <= 1  # the pod that deletes the data
    assert not world.broken, world.broken


reasons = st.sampled_from([*Reason, "Unheard"])
conditions = st.builds(
    condition,
    st.sampled_from(["Progressing", "Suspended", "Stalled", "Complete", "Failed", "QuotaReserved", "Novel"]),
    st.sampled_from(["True", "False", "Unknown"]),
    reasons.map(str),
    st.integers(-10_000, 10_000),
)
statuses = st.none() | st.builds(
    lambda *each, **fields: started(*each, **{name: value for name, value in fields.items() if value is not None}),
    conditions, conditions, conditions, seconds=st.integers(-10_000, 100),
    restarts=st.none() | st.integers(-2, 5), attempt=st.none() | st.integers(0, 9),
    activeSeconds=st.none() | st.integers(0, 9999), checkpoint=st.none() | st.builds(checkpoint, st.integers(0, 99)),
    output=st.none() | st.just(OUTPUT), pending=st.none() | st.just({"reason": "Nonsense"}),
)  # fmt: skip
states = st.sampled_from(
    [
        {"running": {}}, waiting("ImagePullBackOff"), waiting("CreateContainerConfigError", "no"), ended(0), ended(85),
        ended(137, reason="OOMKilled"), ended(65, message="not JSON"), ended(1, message={"reason": "Unheard"}), ended(70),
        ended(0, message=outcome(0, "Completed", output=OUTPUT)), ended(300), ended(-1), {},
    ]
)  # fmt: skip
pods = st.builds(
    pod, st.integers(0, 3), phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
    restart=st.integers(0, 3), jobset_uid=st.sampled_from(["j1", "j2"]), deleting=st.booleans(), init=st.none() | states,
    trainer=st.none() | states, reason=st.sampled_from(["", "Evicted", "NodeLost"]), suffix=st.sampled_from("abc"),
)  # fmt: skip
jobsets = st.none() | st.builds(
    jobset, owner=st.sampled_from([None, "other", sftjob()["metadata"]["uid"]]), uid=st.sampled_from(["j1", "j2"]),
    role=st.sampled_from(["trainer", "cleanup"]), restarts=st.integers(0, 4), deleting=st.booleans(),
    suspend=st.booleans(), ended=st.sampled_from([None, "Completed", "Failed"]),
    reason=st.sampled_from(["ReachedMaxRestarts", "FailJobSetFailurePolicyAction"]), seconds=st.integers(-100, 10),
)  # fmt: skip
jobs = st.builds(
    lambda kind, status, model, meta, **spec: kind(
        status=status, meta=meta, **({"base" if kind is mergejob else "model": model} if model else {}),
        **{name: value for name, value in spec.items() if value is not None},
    ),
    st.sampled_from([sftjob, mergejob, rlrun]),
    statuses,
    st.none() | st.just({"from": {"kind": "SFTJob", "name": "first"}}),
    st.sampled_from([{}, {"deletionTimestamp": "2026-01-01T12:00:00Z", "finalizers": ["pinnace.dev/delete-artifacts"]}]),
    suspend=st.none() | st.booleans(), queueName=st.none() | st.just("q"), backoffLimit=st.none() | st.integers(0, 3),
    activeDeadlineSeconds=st.none() | st.integers(1, 9999), ttlSecondsAfterFinished=st.none() | st.integers(0, 999),
    deletionPolicy=st.none() | st.sampled_from(["Retain", "Delete"]), nonsense=st.none() | st.just(1),
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(jobs, jobsets, st.lists(pods, max_size=4), st.booleans(), st.none() | st.just("PATCH: refused"))
def test_any_observation_has_a_plan(
    job: Object, found: Object | None, seen: list[Object], heard: bool, error: str | None
) -> None:
    facts: dict[str, Any] = {"jobset": found, "pods": tuple(seen), "apply_error": error}
    if heard:
        facts["progress"] = report()
    plan = decide(job, **facts)
    if found:
        assert not plan.children or found["metadata"]["ownerReferences"][0:1] == [
            {"kind": "SFTJob", "name": "job", "uid": job["metadata"]["uid"], "controller": True}
        ]
        assert all(prune.uid == found["metadata"]["uid"] for prune in plan.prune)
    if any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in _valid(job)):
        assert plan.status["state"] in ("Complete", "Failed")
    # Once the status is written, the same facts change nothing more.
    again = decide({**job, "status": dict(plan.status)}, **facts)
    if not plan.children:
        assert again.status == plan.status


def _valid(job: Object) -> list[Object]:
    """The conditions that this version understands, the last of each type."""
    given = (job.get("status") or {}).get("conditions") or []
    return [each for each in given if each["type"] != "Novel" and each["reason"] in set(Reason)]
