"""One job in a world of its own: the JobSet controller, the kubelet, Kueue, the garbage collector and impatient people.

Pure and small: every step is a method, and nothing moves by itself. It follows the JobSet's own failure policy, so that
a wrong pattern in it makes jobs end wrongly here too.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pinnace_operator.api.outcome import ExitCode
from pinnace_operator.api.progress import ProgressReport
from pinnace_operator.reconcile import registry
from pinnace_operator.reconcile.plan import FINALIZER, Observed, OperatorSettings, Plan

from e2e.simulation.objects import (
    NOW,
    OUTPUT,
    Object,
    checkpoint,
    condition,
    ended,
    mergejob,
    outcome,
    pod,
    sftjob,
    started,
)  # fmt: skip
from e2e.simulation.objects import report as posted

PERMANENT = 70
CRASH = 1
UPSTREAM = ("SFTJob", "first")
SWEEP = {
    "axes": [{"parameter": "lambda", "values": ["0.5", "1"]}],
    "evalSuiteTemplate": {"engine": {"vllm": {"device": "cpu"}}, "benchmarks": [{"name": "gaia"}]},
}
MERGED = {"sweep": {"candidates": 2, "folder": "s3://pinnace/run/candidates"}}


@dataclass
class World:
    """What is there now. `gangs` counts JobSets ever made; `broken` collects what must never happen."""

    job: Object
    jobset: Object | None = None
    pods: list[Object] = field(default_factory=list)
    upstream: Object | None = None
    suites: dict[str, Object] = field(default_factory=dict)
    """EvalSuites of a sweep, by name."""
    report: ProgressReport | None = None
    seconds: int = 0
    gangs: int = 0
    quota: bool = True
    gone: bool = False
    broken: list[str] = field(default_factory=list)

    @classmethod
    def create(
        cls, *, kind: str = "SFTJob", nodes: int, waits: bool, queued: bool, backoff: int, delete: bool
    ) -> World:
        spec: Object = {"backoffLimit": backoff}
        source = {"from": {"kind": "SFTJob", "name": "first"}} if waits else {"uri": "s3://pinnace/models/tiny"}
        if kind == "SFTJob":
            spec |= {"trainer": {"device": "cpu", "nodes": nodes}, "training": {"globalBatchSize": nodes}}
            spec["model"] = source
        else:
            spec["models"] = [{"name": "agent", "source": source, "weight": "1"}]
            spec |= {"sweep": SWEEP} if kind == "sweep" else {}
        if queued:
            spec["queueName"] = "q"
        if delete:
            spec["deletionPolicy"] = "Delete"
        return cls(job=(sftjob if kind == "SFTJob" else mergejob)(**spec), quota=not queued)

    # -- the operator ------------------------------------------------------------------------------------------------
    def observe(self) -> Observed:
        return Observed(
            now=NOW + timedelta(seconds=self.seconds),
            settings=OperatorSettings(),
            jobset=copy.deepcopy(self.jobset),
            pods=tuple(copy.deepcopy(self.pods)),
            progress=self.report,
            progress_time=NOW if self.report else None,
            upstreams={UPSTREAM: self.upstream}
            | {
                (kind, name): copy.deepcopy(self.suites.get(name))
                for kind, name in registry.KINDS[self.job["kind"]].references(self.job)
                if kind == "EvalSuite"
            },
        )

    def reconcile(self) -> Plan:
        """Decide and carry out; returns the plan."""
        spec = copy.deepcopy(self.job["spec"])
        plan = registry.reconcile(copy.deepcopy(self.job), self.observe())
        self._carry_out(plan)
        self._expect(self.job["spec"] == spec, "the spec was written")
        return plan

    def settle(self, most: int = 8) -> None:
        """Reconcile until nothing changes any more at this moment."""
        for _ in range(most):
            before = self._picture()
            self.reconcile()
            if self.gone or self._picture() == before:
                return
        self.broken.append("it does not come to rest")

    def _carry_out(self, plan: Plan) -> None:
        finalizers = self.job["metadata"].setdefault("finalizers", [])
        if plan.finalizer and FINALIZER not in finalizers:
            finalizers.append(FINALIZER)
        for each in plan.prune:
            if each.kind == "EvalSuite":
                self._expect(self.suites.pop(each.name)["metadata"]["uid"] == each.uid, "pruned a stranger's suite")
                continue
            self._expect(self.jobset is not None and self.jobset["metadata"]["uid"] == each.uid, "pruned a stranger")
            self._delete_jobset()
        for child in plan.children:
            self._create(copy.deepcopy(dict(child)))
        self.job["status"] = copy.deepcopy(dict(plan.status))
        if not plan.finalizer and FINALIZER in finalizers:
            finalizers.remove(FINALIZER)
        self._garbage()

    def _create(self, child: Object) -> None:
        if child["kind"] == "EvalSuite":
            name = child["metadata"]["name"]
            self._expect(self.jobset is None, "a suite beside a gang")
            child["metadata"]["uid"] = self.suites.get(name, {}).get("metadata", {}).get("uid", f"suite-{self.seconds}")
            self.suites[name] = {**self.suites.get(name, {}), **child}
            return
        if self.jobset is not None:
            self._expect(self.jobset["metadata"]["uid"] == "stranger", "an existing JobSet was changed")
            return
        self._expect(all(_ended(each) for each in self.pods), "a second gang while pods of the first one live")
        self.gangs += 1
        child["metadata"]["uid"] = f"gang-{self.gangs}"
        child["status"] = {"restarts": 0, "restartsCountTowardsMax": 0}
        if "kueue.x-k8s.io/queue-name" in child["metadata"]["labels"]:
            child["spec"]["suspend"] = not self.quota
        self.jobset = child

    # -- controllers -------------------------------------------------------------------------------------------------
    def controllers(self) -> None:
        """One round of the JobSet controller, the kubelet and the garbage collector."""
        self._garbage()
        self._evaluate()
        jobset = self.jobset
        if jobset is None or jobset["metadata"].get("deletionTimestamp") or _finished(jobset):
            return
        if jobset["spec"].get("suspend"):
            self.pods = [each for each in self.pods if _ended(each)]
            return
        gang = self._gang()
        if not gang:
            self.pods = [self._pod(rank) for rank in range(self._nodes())]
        elif any(each["status"]["phase"] == "Failed" for each in gang):
            self._apply_failure_policy(gang)
        elif all(each["status"]["phase"] == "Succeeded" for each in gang):
            self._finish("Completed", "AllJobsCompleted")
        else:
            self.pods = [self._advance(each) for each in self.pods]

    def _evaluate(self) -> None:
        """Another operator's part: one suite comes to its end."""
        for each in self.suites.values():
            if "status" not in each and not each["spec"].get("suspend"):
                each["status"] = started(
                    condition("Complete", reason="Completed"), benchmarks=[{"name": "gaia", "score": "50.0"}]
                )
                return

    def fail(self, rank: int, code: int) -> None:
        """A trainer ends early, also one whose JobSet is gone."""
        reason = {85: "Checkpointed", PERMANENT: "Diverged"}.get(code, "TrainerFailed")
        said = outcome(
            code, reason, "it ended", **({"checkpoint": checkpoint(10)} if code == int(ExitCode.CHECKPOINTED) else {})
        )
        for index, each in enumerate(self.pods):
            if each["status"]["phase"] == "Running" and index == rank % max(1, len(self.pods)):
                failed = pod(index, phase="Failed", trainer=ended(code, message=said))
                self.pods[index] = {**each, "status": failed["status"]}

    def kill(self, rank: int) -> None:
        """A pod vanishes with its node."""
        if self.pods:
            self.pods.pop(rank % len(self.pods))
            jobset = self.jobset
            if jobset and not _finished(jobset) and not jobset["metadata"].get("deletionTimestamp"):
                self._restart(counts=True)

    def _apply_failure_policy(self, gang: list[Object]) -> None:
        assert self.jobset
        policy = self.jobset["spec"]["failurePolicy"]
        code = next(
            each["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
            for each in gang if each["status"]["phase"] == "Failed"
        )  # fmt: skip
        rules = self.jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
        known = any(code in rule.get("onExitCodes", {}).get("values", ()) for rule in rules)
        message = f"Container trainer for pod team/x failed with exit code {code} matching FailJob rule at index 0"
        for rule in policy["rules"]:
            if known and any(re.search(pattern, message) for pattern in rule["onJobFailureMessagePatterns"]):
                if rule["action"] == "FailJobSet":
                    self._finish("Failed", "FailJobSetFailurePolicyAction")
                else:
                    self._restart(counts=False)
                return
        self._restart(counts=True)

    def _restart(self, *, counts: bool) -> None:
        assert self.jobset
        status = self.jobset["status"]
        if counts and status["restartsCountTowardsMax"] >= self.jobset["spec"]["failurePolicy"]["maxRestarts"]:
            self._finish("Failed", "ReachedMaxRestarts")
            return
        status["restarts"] += 1
        status["restartsCountTowardsMax"] += counts
        self.pods = []

    def _finish(self, type_: str, reason: str) -> None:
        assert self.jobset
        self.jobset["status"]["conditions"] = [condition(type_, reason=reason, seconds=self.seconds)]
        self.pods = [each for each in self.pods if _ended(each)]

    def _advance(self, each: Object) -> Object:
        rank = int(each["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])
        if each["status"]["phase"] == "Pending":
            return self._pod(rank, phase="Running")
        if each["status"]["phase"] == "Running":
            said = outcome(0, "Completed", output=OUTPUT if rank == 0 else None)
            if "sweep" in self.job["spec"] and "PINNACE_SWEEP" not in str(self.jobset):
                said = outcome(0, "Completed", merge=MERGED)
            return self._pod(rank, phase="Succeeded", trainer=ended(0, message=said))
        return each

    def _pod(self, rank: int, phase: str = "Pending", **state: Any) -> Object:
        assert self.jobset
        role = self.jobset["spec"]["replicatedJobs"][0]["name"]
        uid, restarts = self.jobset["metadata"]["uid"], self.jobset["status"]["restarts"]
        return pod(rank, phase=phase, restart=restarts, jobset_uid=uid, role=role, suffix=f"{uid}-{restarts}", **state)

    def _gang(self) -> list[Object]:
        assert self.jobset
        mine = (self.jobset["metadata"]["uid"], str(self.jobset["status"]["restarts"]))
        keys = ("jobset.sigs.k8s.io/jobset-uid", "jobset.sigs.k8s.io/restart-attempt")
        return [each for each in self.pods if tuple(each["metadata"]["labels"][key] for key in keys) == mine]

    def _nodes(self) -> int:
        assert self.jobset
        return int(self.jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["parallelism"])

    def _delete_jobset(self) -> None:
        """Foreground: it stays until its pods are gone."""
        if self.jobset:
            self.jobset["metadata"].setdefault("deletionTimestamp", "2026-01-01T12:00:00Z")

    def _garbage(self) -> None:
        if self.jobset and self.jobset["metadata"].get("deletionTimestamp") and not self.pods:
            self.jobset = None
        if self.job["metadata"].get("deletionTimestamp") and not self.job["metadata"].get("finalizers"):
            self.gone = True

    def stop_pods(self) -> None:
        """Pods of a JobSet that is deleted, or was, have ended and are removed."""
        alive = self.jobset["metadata"] if self.jobset else None
        if alive is None or alive.get("deletionTimestamp"):
            self.pods = []
        self._garbage()

    # -- people ------------------------------------------------------------------------------------------------------
    def suspend(self, wanted: bool) -> None:
        self._edit(suspend=wanted)

    def raise_backoff(self) -> None:
        self._edit(backoffLimit=self.job["spec"]["backoffLimit"] + 1)

    def set_ttl(self) -> None:
        self._edit(ttlSecondsAfterFinished=5)

    def delete_jobset_by_hand(self) -> None:
        """In the background: its pods are still there when it is gone."""
        if self.jobset and self.jobset["metadata"]["uid"] != "stranger":
            self.jobset = None

    def delete_suite_by_hand(self) -> None:
        if self.suites:
            self.suites.popitem()

    def delete_job(self) -> None:
        self.job["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
        self._garbage()

    def set_quota(self, given: bool) -> None:
        self.quota = given
        if self.jobset and "kueue.x-k8s.io/queue-name" in self.jobset["metadata"].get("labels", {}):
            self.jobset["spec"]["suspend"] = not given

    def finish_upstream(self) -> None:
        self.upstream = sftjob(
            "first", uid="first", status=started(condition("Complete", reason="Completed"), output=OUTPUT)
        )

    def post_report(self, step: int) -> None:
        attempt = int(self.job.get("status", {}).get("attempt", 0))
        self.report = ProgressReport.from_manifest(posted(step, attempt=attempt))

    def pass_time(self, seconds: int) -> None:
        self.seconds += seconds

    def _edit(self, **spec: Any) -> None:
        self.job["spec"].update(spec)
        self.job["metadata"]["generation"] += 1

    # --
    def _picture(self) -> object:
        return copy.deepcopy((self.job, self.jobset, self.pods, self.gangs, self.suites))

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.broken.append(otherwise)


def _ended(each: Object) -> bool:
    return each["status"]["phase"] in ("Succeeded", "Failed")


def _finished(jobset: Object) -> bool:
    return bool(jobset["status"].get("conditions"))
