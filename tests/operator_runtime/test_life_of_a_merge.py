"""SFT, then merge, without a hand in between: the operator's process on the real API server."""

from __future__ import annotations

from pinnace_operator.api.merge_status import MergePlan, MergeReport

from e2e.faults.api import Object, eventually
from e2e.faults.cluster import Hands, completed
from e2e.faults.operator_process import OperatorProcess
from e2e.simulation.objects import mergejob

MERGES = "/apis/pinnace.dev/v1alpha1/namespaces/{}/mergejobs"
REPORT = MergeReport(plan=MergePlan(tensors=24, input_bytes=4000, output_bytes=2000, files=1)).to_manifest()


def test_a_merge_waits_for_an_sft_job_and_is_woken_by_it(operator: OperatorProcess, hands: Hands) -> None:
    path = MERGES.format(hands.namespace)
    source = {"from": {"kind": "SFTJob", "name": "first"}}
    manifest = mergejob("fused", models=[{"name": "agent", "source": source, "weight": "1"}])
    hands.api.create(path, {**manifest, "metadata": {"name": "fused", "namespace": hands.namespace}})

    def status() -> Object:
        found: Object = (hands.api.get(f"{path}/fused") or {}).get("status") or {}
        return found

    eventually("the merge waits", lambda: status().get("pending", {}).get("reason") == "WaitingForInput")
    hands.submit("first")
    assert hands.jobset("fused") is None
    hands.complete("first")

    jobset = hands.wait_jobset("fused")
    pod = hands.create_pod(jobset)
    hands.run_pod(pod)
    eventually("the merge runs", lambda: status().get("state") == "Running")
    hands.end_pod(pod, {**completed(), "merge": REPORT})
    hands.end_jobset(jobset)
    eventually("the merge is complete", lambda: status().get("state") == "Complete")
    assert status()["plan"] == REPORT["plan"]
    assert status()["output"] == completed()["output"]
    assert [each["ref"] for each in status()["inputs"]] == [
        "base: s3://pinnace/models/tiny",
        "models.agent: SFTJob/first",
    ]
