"""The rights that the chart gives are enough for a job's whole life, and the operator asks for no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.apiserver import ApiServer
from e2e.faults import roles
from e2e.faults.cluster import Hands
from e2e.faults.operator_process import operator_process


@pytest.mark.parametrize("scope", ["namespaced", "cluster-wide"])
def test_a_job_lives_with_the_rights_of_the_chart_alone(
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
        assert "orbidden" not in operator.log.read_text()
