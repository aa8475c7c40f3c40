"""The rights that the chart gives are enough for the whole life of each kind, and the operator asks for no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.apiserver import ApiServer
from e2e.faults import roles
from e2e.faults.api import eventually
from e2e.faults.cluster import Hands
from e2e.faults.operator_process import operator_process
from e2e.faults.toolsandbox import GatewayReporter, SandboxHands, serves


@pytest.mark.parametrize("scope", ["namespaced", "cluster-wide"])
def test_a_job_and_a_toolsandbox_live_with_the_rights_of_the_chart_alone(
    apiserver: ApiServer, hands: Hands, tmp_path: Path, scope: str
) -> None:
    namespaces = (hands.namespace,) if scope == "namespaced" else ()
    roles.install(hands.api, hands.namespace, namespaces)
    kubeconfig = roles.service_account_kubeconfig(hands, apiserver, tmp_path)
    settings = {"WATCH_NAMESPACES": ",".join(namespaces)}
    with operator_process(kubeconfig, tmp_path, namespace=hands.namespace, settings=settings) as operator:
        operator.wait_ready()
        operator.wait_leads()
        hands.submit("tiny")
        hands.complete("tiny")
        hands.assert_complete("tiny")
        hands.submit("removed")
        hands.wait_jobset("removed")
        hands.delete_job("removed")
        hands.wait_gone("removed")
        sandbox = SandboxHands(hands)
        sandbox.submit({"name": "time", "catalogue": "time"}, sessions={"warm": 1, "recycle": "Delete"})
        reporter = GatewayReporter.connect(sandbox, sandbox.run("tools-gateway"), operator.progress_port)
        sandbox.run("tools-time-v1")
        pod = sandbox.run("tools-session")
        reporter.post(serves("time"))
        sandbox.wait_condition("True", "Available")
        reporter.post(sessions={"spent": [pod["metadata"]["name"]]})
        eventually("a sandbox that is worn out goes", lambda: pod["metadata"]["name"] not in sandbox.living_pods())
        sandbox.edit(servers=[])
        eventually("gateways are told", lambda: not sandbox.configured())
        reporter.post()
        reporter.client.close()
        eventually("what left the spec goes", lambda: sandbox.child("Deployment", "tools-time-v1") is None)
        eventually("all of it", lambda: not {name for _, name in sandbox.children() if name.startswith("tools-time")})
        assert "orbidden" not in operator.log.read_text()
