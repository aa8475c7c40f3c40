# ruff: noqa: E501 -- a table: one situation a row
"""A sweep with EvalSuites: candidates are merged, one suite a candidate judges them, the winner is published."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pinnace_operator.api.evalsuite import EvalSuite
from pinnace_operator.reconcile import merge
from pinnace_operator.reconcile.plan import Plan

from e2e.simulation.case import Case
from e2e.simulation.evalsuite import evalsuite
from e2e.simulation.objects import OUTPUT, UID, Object, at, condition, ended, jobset, mergejob, outcome, pod, started
from e2e.simulation.world import World

FOLDER = "s3://pinnace/team/mergejob/job/0a1b2c3d/candidates"
VALUES = ["0.5", "1", "1.5"]
MERGED = {"candidates": 3, "folder": FOLDER}
TEMPLATE = {
    "engine": {"vllm": {"device": "cpu"}},
    "agent": {"dialect": "Hermes"},
    "benchmarks": [{"name": "gaia"}, {"name": "scout"}],
}


def swept(status: Object | None = None, *, parallel: int = 2, meta: Object | None = None, **spec: Any) -> Object:
    sweep = {
        "axes": [{"parameter": "lambda", "values": VALUES}],
        "evalSuiteTemplate": {**TEMPLATE, "parallel": parallel},
    }
    return mergejob(status=status, meta=meta, sweep=sweep, **spec)


def at_work(**sweep: Any) -> Object:
    """The status once all candidates are merged."""
    return started(sweep={**MERGED, "scored": 0, **sweep})


def suite(
    number: int, *scores: str | None, failed: str = "", owner: str = UID, suspend: bool = False
) -> tuple[tuple[str, str], Object]:
    name = f"job-{number:03d}"
    conditions = [condition("Failed", message=failed)] if failed else [condition("Complete")] if scores else []
    table = [
        {"name": each, **({"score": score} if score else {})}
        for each, score in zip(("gaia", "scout"), scores, strict=False)
    ]
    meta = {"ownerReferences": [{"kind": "MergeJob", "name": "job", "uid": owner, "controller": True}]}
    status = started(*conditions, benchmarks=table)
    return ("EvalSuite", name), evalsuite(name, uid=f"suite-{number}", status=status, meta=meta, suspend=suspend)


def facts(*suites: tuple[tuple[str, str], Object], **more: Any) -> dict[str, Any]:
    none: dict[tuple[str, str], Object | None] = {("EvalSuite", f"job-{number:03d}"): None for number in range(3)}
    return {"upstreams": none | dict(suites), **more}


def row(number: int, gaia: str, scout: str, score: str) -> Object:
    benchmarks = [{"name": "gaia", "score": gaia}, {"name": "scout", "score": scout}]
    return {
        "candidate": f"candidate-{number:03d}",
        "values": [VALUES[number]],
        "score": score,
        "benchmarks": benchmarks,
    }


ALL = (suite(0, "50.0", "20.0"), suite(1, "60.0", "40.0"), suite(2, "70.0", "10.0"))
ROWS = [row(0, "50.0", "20.0", "35.00"), row(1, "60.0", "40.0", "50.00"), row(2, "70.0", "10.0", "40.00")]
WON = {**MERGED, "scored": 3, "rows": ROWS, "winner": "candidate-001"}
SAID = outcome(0, "Completed", merge={"sweep": {**MERGED, "scored": 0}})
ENDED = {
    "jobset": jobset(role="worker", ended="Completed"),
    "pods": (pod(role="worker", phase="Succeeded", trainer=ended(0, message=SAID)),),
}

CASES = [
    Case(name="at first it merges, as every job", job=swept(), state="Pending", reason="Starting", creates=True),
    Case(name="the candidates are merged: the status keeps where, before the pods' JobSet goes", job=swept(started()), facts=ENDED,
         state="Running", reason="Evaluating", status={"sweep": {**MERGED, "scored": 0}, "output": None}),
    Case(name="then the JobSet goes", job=swept(at_work()), facts=facts(**ENDED), state="Running", reason="Evaluating", prunes=True),
    Case(name="as many suites are made as may run side by side", job=swept(at_work()), facts=facts(),
         state="Running", reason="Evaluating", says=("0 of 3",), creates=True),
    Case(name="while they run there is nothing to do", job=swept(at_work()), facts=facts(suite(0), suite(1)),
         state="Running", reason="Evaluating", says=("0 of 3",)),
    Case(name="one that is done makes room for the next", job=swept(at_work()), facts=facts(ALL[0], suite(1)),
         state="Running", reason="Evaluating", says=("1 of 3",), creates=True, status={"sweep": {**MERGED, "scored": 1, "rows": ROWS[:1]}}),
    Case(name="one that was deleted is made again", job=swept(at_work()), facts=facts(ALL[0], ALL[2]),
         state="Running", reason="Evaluating", says=("2 of 3",), creates=True),
    Case(name="the highest mean wins, and the status keeps it first", job=swept(at_work()), facts=facts(*ALL),
         state="Running", reason="Evaluating", says=("candidate-001",), status={"sweep": WON}),
    Case(name="a winner is published by a JobSet", job=swept(started(sweep=WON)), state="Pending", reason="Starting", creates=True,
         status={"sweep": WON, "inputs": [
             {"ref": "base: s3://pinnace/models/tiny", "uri": "s3://pinnace/models/tiny"},
             {"ref": "models.agent: s3://pinnace/models/agent", "uri": "s3://pinnace/models/agent"},
             {"ref": "sweep.winner: EvalSuite/job-001"},
         ]}),
    Case(name="and is the output", job=swept(started(sweep=WON)), state="Complete", reason="Completed",
         facts={"jobset": jobset(role="worker", ended="Completed"), "pods": (
             pod(role="worker", phase="Succeeded", trainer=ended(0, message=outcome(0, "Completed", output=OUTPUT, merge={"sweep": {**WON, "rows": [], "plot": "s3://pinnace/p.svg"}}))),
         )}, status={"output": OUTPUT, "sweep": {**WON, "plot": "s3://pinnace/p.svg"}}),
    Case(name="a suite that failed needs a person, others go on", job=swept(at_work()), facts=facts(suite(0, failed="No node fits."), suite(1)),
         state="Stalled", reason="InputFailed", says=("EvalSuite/job-000", "No node fits", "delete that EvalSuite"), creates=True),
    Case(name="a benchmark without a score is no score: others would be compared with less", job=swept(at_work()), facts=facts(ALL[0], suite(1, "99.0", None), ALL[2]),
         state="Stalled", reason="InputFailed", says=("EvalSuite/job-001", "no score")),
    Case(name="somebody else's suite of that name is left alone, and not believed", job=swept(at_work()), facts=facts(suite(0, "99.0", "99.0", owner="other")),
         state="Stalled", reason="ChildConflict", says=("job-000", "not this job's"), requeue=10),
    Case(name="what the API server says about a suite that it refuses", job=swept(at_work()), facts=facts(apply_error="exceeded quota"),
         state="Stalled", reason="PodRejected", says=("exceeded quota",)),
    Case(name="suspended", job=swept(at_work(), suspend=True), facts=facts(suite(0, suspend=True)), state="Suspended", reason="Suspended", says=("EvalSuites",)),
    Case(name="suspending takes the suites along", job=swept(at_work(), suspend=True), facts=facts(suite(0)), state="Suspended", reason="Suspended", creates=True),
    Case(name="and so does going on", job=swept(at_work()), facts=facts(suite(0, suspend=True), suite(1)), state="Running", reason="Evaluating", creates=True),
    Case(name="the deadline is looked at in time", job=swept(at_work(), activeDeadlineSeconds=700), facts=facts(suite(0), suite(1)),
         state="Running", reason="Evaluating", requeue=100),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_situation(case: Case, decide: Callable[..., Plan]) -> None:
    case.check(decide(case.job, **case.facts))


def test_a_suite_serves_its_candidate_with_the_jobs_storage_queue_and_policies(decide: Callable[..., Plan]) -> None:
    job = swept(at_work(), storage={"bucket": "other"}, queueName="gpus", deletionPolicy="Delete", backoffLimit=1)
    first, second = decide(job, **facts()).children
    assert [each["metadata"]["name"] for each in (first, second)] == ["job-000", "job-001"]
    spec = EvalSuite.from_manifest(second).spec
    assert (spec.model.uri if spec.model else None) == f"{FOLDER}/candidate-001"
    assert [each.name for each in spec.benchmarks] == ["gaia", "scout"]
    assert (spec.storage.bucket, spec.queue_name, str(spec.deletion_policy), spec.backoff_limit) == (
        "other",
        "gpus",
        "Delete",
        1,
    )


def test_one_at_a_time_unless_more_are_wanted(decide: Callable[..., Plan]) -> None:
    for parallel in (1, 3):
        assert len(decide(swept(at_work(), parallel=parallel), **facts()).children) == parallel


def test_suites_end_with_a_job_that_ran_out_of_time(decide: Callable[..., Plan]) -> None:
    plan = decide(swept(at_work(), activeDeadlineSeconds=60), **facts(ALL[0], suite(1), suite(2, owner="other")))
    assert plan.status["state"] == "Failed"
    assert [(each.kind, each.name, each.uid) for each in plan.prune] == [("EvalSuite", "job-001", "suite-1")]


def test_the_pods_that_publish_have_the_table_and_the_first_ones_have_none(decide: Callable[..., Plan]) -> None:
    def variables(job: Object) -> dict[str, str]:
        (child,) = decide(job).children
        template = child["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        return {each["name"]: each.get("value", "") for each in template["containers"][0]["env"]}

    assert "PINNACE_SWEEP" not in variables(swept())
    told = variables(swept(started(sweep=WON)))
    assert json.loads(told["PINNACE_SWEEP"]) == WON
    assert set(json.loads(told["PINNACE_JOB"])["resolved"]) == {"base", "models.agent"}


def test_suites_are_looked_at_between_the_merges_and_the_winner_only() -> None:
    names = tuple(("EvalSuite", f"job-{number:03d}") for number in range(3))
    assert merge.references(swept()) == ()
    assert merge.references(swept(at_work())) == names
    assert merge.references(swept(started(sweep=WON))) == ()


def test_a_job_that_is_over_makes_no_suites(decide: Callable[..., Plan]) -> None:
    failed = started(
        condition("Failed", reason="DeadlineExceeded"), sweep={**MERGED, "scored": 0}, completionTime=at(-5)
    )
    assert not decide(swept(failed), **facts()).children


def test_left_alone_it_takes_two_gangs_and_a_suite_a_candidate() -> None:
    world = World.create(kind="sweep", nodes=1, waits=False, queued=False, backoff=0, delete=False)
    for _ in range(20):
        world.settle()
        world.stop_pods()
        world.controllers()
    status = world.job["status"]
    assert (status["state"], status["sweep"]["winner"], world.gangs) == ("Complete", "candidate-000", 2)
    assert (sorted(world.suites), world.broken) == (["job-000", "job-001"], [])
