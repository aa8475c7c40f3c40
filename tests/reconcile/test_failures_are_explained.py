# ruff: noqa: E501 -- a table: one failure a row
"""`status.lastFailure`: which failure explains the rest, in which words, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from pinnace_operator.reconcile.plan import Plan

from e2e.simulation.objects import NOW, Object, at, checkpoint, ended, jobset, outcome, pod, sftjob, started, waiting


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    pods: tuple[Object, ...]
    reason: str | None
    says: tuple[str, ...] = ()
    pod: str = "job-trainer-0-0-x"
    container: str = "trainer"
    code: int | None = None
    tail: str = ""


def disruption(reason: str, message: str = "") -> Object:
    return {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": at(-4),
    }


NAN = outcome(
    70, "Diverged", "Loss is NaN at step 12: lower training.learningRate", step=12, logTail="step 11\nstep 12 nan"
)
CASES = [
    Case(name="killed for memory", pods=(pod(phase="Failed", trainer=ended(137, reason="OOMKilled")),), reason="OutOfMemory",
         says=("memory limit of 2Gi", "raise trainer.resources.limits.memory"), code=137),
    Case(name="the device's memory was full", pods=(pod(phase="Failed", trainer=ended(1, message=outcome(1, "OutOfMemory", "CUDA out of memory"))),),
         reason="OutOfMemory", says=("CUDA out of memory", "microBatchSize"), code=1),
    Case(name="NaN", pods=(pod(phase="Failed", trainer=ended(70, message=NAN)),), reason="Diverged",
         says=("step 12", "learningRate"), code=70, tail="step 11\nstep 12 nan"),
    Case(name="bad data", container="preflight", code=65, reason="InvalidData", says=("train.jsonl line 7", "correct the records"),
         pods=(pod(phase="Failed", init=ended(65, message=outcome(65, "InvalidData", "train.jsonl line 7: no messages")), trainer=waiting("PodInitializing")),)),
    Case(name="no storage", container="preflight", code=69, reason="StorageUnavailable", says=("bucket", "pinnace-storage"),
         pods=(pod(phase="Failed", init=ended(69, message=outcome(69, "StorageUnavailable", "no bucket pinnace")), trainer=waiting("PodInitializing")),)),
    Case(name="unusable model", container="preflight", code=78, reason="ModelUnusable", says=("Hugging Face layout",),
         pods=(pod(phase="Failed", init=ended(78), trainer=waiting("PodInitializing")),)),
    Case(name="a bug", pods=(pod(phase="Failed", trainer=ended(1, message=outcome(1, "TrainerFailed", "KeyError: 'x'", logTail="Traceback"))),),
         reason="TrainerFailed", says=("KeyError", "logTail"), code=1, tail="Traceback"),
    Case(name="died without a word, the log's end is kept", pods=(pod(phase="Failed", trainer=ended(3, message="last line of the log")),),
         reason="TrainerFailed", says=("exit code 3", "no message"), code=3, tail="last line of the log"),
    Case(name="killed by a signal", pods=(pod(phase="Failed", trainer=ended(137)),), reason="TrainerFailed", says=("SIGKILL", "137"), code=137),
    Case(name="segmentation fault", pods=(pod(phase="Failed", trainer=ended(139)),), reason="TrainerFailed", says=("SIGSEGV",), code=139),
    Case(name="the command is not in the image", pods=(pod(phase="Failed", trainer=ended(128, reason="StartError", message="exec: pinnace: not found")),),
         reason="PodConfigInvalid", says=("pinnace: not found",), code=128, tail="exec: pinnace: not found"),
    Case(name="evicted by the kubelet", container="", reason="Evicted", says=("ephemeral storage", "resources.requests"),
         pods=(pod(phase="Failed", trainer=ended(137), conditions=(disruption("TerminationByKubelet", "ephemeral storage ran out"),)),)),
    Case(name="the node is gone", container="", reason="NodeLost", says=("check the node",),
         pods=(pod(phase="Failed", trainer=ended(137), conditions=(disruption("DeletionByPodGC"),)),)),
    Case(name="preempted after a checkpoint", container="", reason="Evicted",
         pods=(pod(phase="Failed", trainer=ended(85), conditions=(disruption("PreemptionByScheduler"),)),)),
    Case(name="a checkpoint on request is no failure", pods=(pod(phase="Failed", trainer=ended(85, message=outcome(85, "Checkpointed", checkpoint=checkpoint()))),), reason=None),
    Case(name="killed because the pod was deleted is a consequence", pods=(pod(phase="Failed", deleting=True, trainer=ended(137)),), reason=None),
    Case(name="success is no failure", pods=(pod(phase="Succeeded", trainer=ended(0)),), reason=None),
    Case(name="in a gang the cause counts, not who was hit by it", code=137, reason="OutOfMemory", pod="job-trainer-0-1-x",
         pods=(pod(0, phase="Failed", trainer=ended(1, seconds=-9, message=outcome(1, "RendezvousFailed", "peer 1 is gone"))),
               pod(1, phase="Failed", trainer=ended(137, reason="OOMKilled", seconds=-3)))),
    Case(name="a permanent failure explains more than an earlier crash", code=65, reason="InvalidData", pod="job-trainer-0-1-x",
         pods=(pod(0, phase="Failed", trainer=ended(1, seconds=-9)), pod(1, phase="Failed", trainer=ended(65, seconds=-3)))),
    Case(name="of equals the earliest", code=1, reason="TrainerFailed", pod="job-trainer-0-1-x",
         pods=(pod(0, phase="Failed", trainer=ended(1, seconds=-3)), pod(1, phase="Failed", trainer=ended(1, seconds=-9)))),
    Case(name="the newest attempt counts", code=2, reason="TrainerFailed", pod="job-trainer-0-0-y",
         pods=(pod(phase="Failed", trainer=ended(137, reason="OOMKilled")), pod(restart=1, phase="Failed", trainer=ended(2), suffix="y"))),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_last_failure(case: Case, decide: Callable[..., Plan]) -> None:
    failure = decide(sftjob(status=started()), jobset=jobset(), pods=case.pods).status.get("lastFailure")
    if case.reason is None:
        assert failure is None
        return
    assert failure
    assert (failure["reason"], failure["pod"], failure["container"]) == (case.reason, case.pod, case.container)
    assert (failure.get("exitCode"), failure.get("logTail", "")) == (case.code, case.tail)
    assert not [text for text in case.says if text not in failure["message"]], failure["message"]


def test_a_failure_stays_when_its_pod_is_gone(decide: Callable[..., Plan]) -> None:
    job = sftjob(status=started())
    seen = decide(job, jobset=jobset(), pods=(pod(phase="Failed", trainer=ended(1)),))
    later = decide(sftjob(status=dict(seen.status)), jobset=jobset(restarts=1), pods=(pod(restart=1),), now=NOW)
    assert later.status["lastFailure"] == seen.status["lastFailure"]
    assert later.status["state"] == "Running"


def test_an_event_tells_of_a_failure_once(decide: Callable[..., Plan]) -> None:
    facts = {"jobset": jobset(), "pods": (pod(phase="Failed", trainer=ended(1)),)}
    first = decide(sftjob(status=started()), **facts)
    assert [each.reason for each in first.events if each.type == "Warning"] == ["TrainerFailed"]
    assert decide(sftjob(status=dict(first.status)), **facts).events == ()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(64, "InvalidSpec"), (65, "InvalidData"), (69, "StorageUnavailable"), (70, "Diverged"), (78, "ModelUnusable")],
)
def test_a_permanent_exit_code_fails_the_job_with_its_reason(
    decide: Callable[..., Plan], code: int, reason: str
) -> None:
    plan = decide(
        sftjob(status=started()),
        jobset=jobset(ended="Failed", reason="FailJobSetFailurePolicyAction"),
        pods=(pod(phase="Failed", trainer=ended(code)),),
    )
    failed = next(each for each in plan.status["conditions"] if each["type"] == "Failed")
    assert (failed["status"], failed["reason"], plan.status["state"]) == ("True", reason, "Failed")
    assert "Remedy: " in failed["message"]
