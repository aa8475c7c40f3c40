"""SFT, then merge, without a hand in between: the operator's process on the real API server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pinnace_operator.api.merge_status import MergePlan, MergeReport

from e2e.apiserver import ApiServer
from e2e.faults import roles
from e2e.faults.api import Object, eventually
from e2e.faults.cluster import Hands, completed
from e2e.faults.operator_process import OperatorProcess, operator_process
from e2e.simulation.objects import mergejob

MERGES = "/apis/pinnace.dev/v1alpha1/namespaces/{}/mergejobs"
SUITES = "/apis/pinnace.dev/v1alpha1/namespaces/{}/evalsuites"
TEMPLATE = {"engine": {"vllm": {"device": "cpu"}}, "benchmarks": [{"name": "gaia"}], "parallel": 2}
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


def finish_suite(hands: Hands, name: str, score: str) -> None:
    jobset = hands.wait_jobset(name)
    shard = hands.create_pod(jobset, role=2)
    hands.run_pod(shard)
    table = [{"name": "gaia", "done": 4, "total": 4, "score": score, "low": score, "high": score}]
    hands.end_pod(shard, {**completed(), "benchmarks": table})
    hands.end_jobset(jobset)


def finish(hands: Hands, told: dict[str, Any]) -> Object:
    jobset = hands.wait_jobset("fused")
    pod = hands.create_pod(jobset)
    hands.run_pod(pod)
    hands.end_pod(pod, told)
    hands.end_jobset(jobset)
    return jobset


def test_candidates_are_evaluated_by_suites_and_the_best_is_published(
    apiserver: ApiServer, hands: Hands, tmp_path: Path
) -> None:
    """With the rights of the chart alone."""
    roles.install(hands.api, hands.namespace, (hands.namespace,))
    kubeconfig = roles.service_account_kubeconfig(hands, apiserver, tmp_path)
    path = f"{MERGES.format(hands.namespace)}/fused"

    def status() -> Object:
        found: Object = (hands.api.get(path) or {}).get("status") or {}
        return found

    axes = [{"parameter": "lambda", "values": ["0.5", "1"]}]
    manifest = mergejob("fused", sweep={"axes": axes, "evalSuiteTemplate": TEMPLATE})
    manifest["metadata"] = {"name": "fused", "namespace": hands.namespace}
    with operator_process(
        kubeconfig, tmp_path, namespace=hands.namespace, settings={"WATCH_NAMESPACES": hands.namespace}
    ) as operator:
        operator.wait_ready()
        operator.wait_leads()
        hands.api.create(MERGES.format(hands.namespace), manifest)
        merged = {"sweep": {"candidates": 2, "folder": "s3://pinnace/run/candidates"}}
        jobset = finish(
            hands, {key: value for key, value in completed().items() if key != "output"} | {"merge": merged}
        )
        eventually(
            "the pods that merged go", lambda: (hands.jobset("fused") or jobset)["metadata"].get("deletionTimestamp")
        )
        assert not hands.api.items(SUITES.format(hands.namespace))
        hands.collect_garbage()
        eventually("there are suites", lambda: len(hands.api.items(SUITES.format(hands.namespace))) == 2)
        finish_suite(hands, "fused-000", "40.0")
        finish_suite(hands, "fused-001", "60.0")
        eventually("the best is known", lambda: (status().get("sweep") or {}).get("winner") == "candidate-001")
        finish(hands, completed())
        eventually("the merge is complete", lambda: status().get("state") == "Complete")
        assert "orbidden" not in operator.log.read_text()
    owners = [each["metadata"]["ownerReferences"] for each in hands.api.items(SUITES.format(hands.namespace))]
    assert [(owner["kind"], owner["name"]) for (owner,) in owners] == [("MergeJob", "fused")] * 2
    assert [row["score"] for row in status()["sweep"]["rows"]] == ["40.00", "60.00"]
    assert status()["inputs"][-1] == {"ref": "sweep.winner: EvalSuite/fused-001"}
