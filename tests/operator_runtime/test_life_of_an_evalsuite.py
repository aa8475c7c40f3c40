"""From an EvalSuite to its JobSet and policies and back to the status, with the rights of the chart alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.apiserver import ApiServer
from e2e.faults import roles
from e2e.faults.api import Api, Object, eventually
from e2e.faults.cluster import Hands, completed
from e2e.faults.operator_process import operator_process
from e2e.faults.toolsandbox import GatewayReporter, SandboxHands, serves

SUITES = "/apis/pinnace.dev/v1alpha1/namespaces/{}/evalsuites"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"
TABLE = [{"name": "gaia", "done": 4, "total": 4, "score": "75.0", "low": "60.0", "high": "90.0", "passAt": "80.0"}]


def submit(api: Api, namespace: str, name: str, **spec: Any) -> Object:
    return api.create(SUITES.format(namespace), {
        "apiVersion": "pinnace.dev/v1alpha1", "kind": "EvalSuite",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "model": {"uri": "s3://models/tiny"}, "engine": {"vllm": {"device": "cpu"}}, "agent": {"dialect": "Hermes"},
            "benchmarks": [{"name": "gaia"}], "toolSandbox": {"name": "tools"}, "shards": 2, **spec,
        },
    })  # fmt: skip


def test_a_suite_waits_for_its_tools_and_tells_what_its_shards_found(
    apiserver: ApiServer, hands: Hands, tmp_path: Path
) -> None:
    roles.install(hands.api, hands.namespace, (hands.namespace,))
    kubeconfig = roles.service_account_kubeconfig(hands, apiserver, tmp_path)

    def status() -> Object:
        found = hands.api.get(f"{SUITES.format(hands.namespace)}/suite") or {}
        return dict(found.get("status") or {})

    settings = {"WATCH_NAMESPACES": hands.namespace}
    with operator_process(kubeconfig, tmp_path, namespace=hands.namespace, settings=settings) as operator:
        operator.wait_ready()
        operator.wait_leads()
        suite = submit(hands.api, hands.namespace, "suite")
        eventually("it waits", lambda: (status().get("pending") or {}).get("reason") == "WaitingForInput")
        assert "ToolSandbox/tools" in status()["pending"]["message"]
        sandbox = SandboxHands(hands)
        sandbox.submit({"name": "time", "catalogue": "time"})
        reporter = GatewayReporter.connect(sandbox, sandbox.run("tools-gateway"), operator.progress_port)
        sandbox.run("tools-time-v1")
        reporter.post(serves("time"))
        sandbox.wait_condition("True", "Available")
        reporter.client.close()
        jobset = hands.wait_jobset("suite")
        policies = {each["metadata"]["name"] for each in hands.api.items(POLICIES.format(hands.namespace))}
        assert {"suite-preflight", "suite-worker", "suite-rollout"} <= policies
        check = hands.create_pod(jobset)
        hands.run_pod(check)
        eventually("it is checked", lambda: "Checking benchmarks" in status()["pending"]["message"])
        hands.end_pod(check, {"reason": "Completed", "message": "", "exitCode": 0, "logTail": ""})
        server = hands.create_pod(jobset, role=1)
        hands.run_pod(server)
        shard = hands.create_pod(jobset, 1, role=2)
        hands.run_pod(shard)
        eventually("one shard is enough", lambda: status().get("state") == "Running")
        hands.end_pod(shard, {**completed(), "benchmarks": TABLE})
        hands.end_jobset(jobset)
        eventually("it is complete", lambda: status().get("state") == "Complete")
        assert "orbidden" not in operator.log.read_text()
    found = status()
    assert (found["score"], found["output"]["uri"]) == ("75.0 ± 15.0", "s3://pinnace/output")
    assert found["benchmarks"] == [{"tokens": 0, **TABLE[0]}]
    assert [each["ref"] for each in found["inputs"]][1] == "toolSandbox: ToolSandbox/tools"
    assert suite["metadata"]["uid"] == jobset["metadata"]["ownerReferences"][0]["uid"]
