"""Any part may be killed at any time: the cluster heals, `up` repairs, `down` leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from e2e.cluster import Cluster, network, processes, traces
from e2e.cluster.components import all_components
from e2e.cluster.paths import DEFAULT_RUN
from e2e.cluster.status import component_status
from e2e.kube import CommandError, Kubectl
from e2e.scenarios import pods

pytestmark = pytest.mark.cluster
COMPONENTS = [component.name for component in all_components(DEFAULT_RUN)]


def pids() -> dict[str, int]:
    return {each.name: each.pid for each in component_status(DEFAULT_RUN)}


def kill(*found: int) -> None:
    assert all(found)
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def all_healthy() -> bool:
    return [each.problem for each in component_status(DEFAULT_RUN)] == [None] * len(COMPONENTS)


def resolves() -> bool:
    command = ["busybox", "nslookup", "kubernetes.default.svc.cluster.local", network.DNS_IP]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def works(kubectl: Kubectl, name: str) -> None:
    """A pod is admitted, scheduled, run, finds a name and is told as ended."""

    def created() -> bool:
        try:
            kubectl.apply(pods.pod(name, "until nslookup kubernetes.default.svc.cluster.local; do sleep 0.1; done"))
        except CommandError:
            return False
        return True

    kubectl.wait("pod accepted", created, 60, 0.2)
    kubectl.run("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=90s")


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_killed_component_comes_back(kubectl: Kubectl, name: str) -> None:
    before = pids()
    kill(before[name])
    kubectl.wait(f"{name} back", lambda: pids()[name] not in {0, before[name]} and all_healthy(), 60, 0.1)
    works(kubectl, "after")
    after = pids()
    log = (DEFAULT_RUN.logs / "supervisor.log").read_text()
    assert {each for each in COMPONENTS if after[each] != before[each]} == {name}, log


def test_a_killed_dns_server_comes_back(kubectl: Kubectl) -> None:
    def pid() -> int:
        found = subprocess.run(
            ["pgrep", "-fx", "/coredns -conf /etc/coredns/Corefile"], check=False, capture_output=True, text=True
        )
        return int(found.stdout.split()[0]) if found.stdout else 0

    before = pid()
    kill(before)
    kubectl.wait("DNS back", lambda: pid() not in {0, before} and resolves(), 60, 0.2)


def test_the_cluster_runs_on_without_its_supervisor_and_up_brings_another(cluster: Cluster, kubectl: Kubectl) -> None:
    before = pids()
    kill(*(p.pid for p in processes.marked(DEFAULT_RUN) if p.component == "supervisor"))
    works(kubectl, "meanwhile")
    cluster.up()
    assert pids() == before
    kill(before["scheduler"])
    kubectl.wait(
        "scheduler back", lambda: pids()["scheduler"] not in {0, before["scheduler"]} and all_healthy(), 60, 0.1
    )


def test_up_twice_changes_nothing(cluster: Cluster) -> None:
    before = pids()
    cluster.up()
    assert pids() == before
    assert all_healthy()


def test_a_restart_keeps_objects_and_pods(cluster: Cluster, kubectl: Kubectl) -> None:
    kubectl.apply(pods.web("kept"), {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}})
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "kept"},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {
            "metadata": {"labels": {"app": "d"}}, "spec": {"containers": [pods.container("sleep 3600")]}}},
    }  # fmt: skip
    kubectl.apply(deployment)
    kubectl.run("rollout", "status", "deployment/kept", "--timeout=60s")
    cluster.down()
    cluster.up()
    assert kubectl.get("configmap", "kept")
    works(kubectl, "after")
    kubectl.run("wait", "--for=condition=Available", "deployment/kept", "--timeout=60s")


@pytest.mark.parametrize(
    "dead", [[], ["containerd", "kubelet"], ["supervisor", "apiserver", "etcd"], [*COMPONENTS, "supervisor"]]
)
def test_down_leaves_nothing_whatever_was_killed(
    cluster: Cluster, kubectl: Kubectl, machine_before: traces.Traces, dead: list[str]
) -> None:
    kubectl.apply(pods.web("busy"))
    kubectl.run("wait", "--for=condition=Ready", "pod/busy", "--timeout=60s")
    # The supervisor first: it would bring the others back.
    running = sorted(processes.marked(DEFAULT_RUN), key=lambda process: process.component != "supervisor")
    main = set(pids().values())
    kill(*(p.pid for p in running if p.component in dead and (p.pid in main or p.component == "supervisor")))
    try:
        cluster.down()
        assert traces.left(machine_before, traces.take()) == {}
    finally:
        cluster.up()


def test_up_repairs_a_cluster_of_which_everything_was_killed(cluster: Cluster, kubectl: Kubectl) -> None:
    everything = sorted(processes.marked(DEFAULT_RUN), key=lambda process: process.component != "supervisor")
    kill(*(process.pid for process in everything))
    cluster.up()
    works(kubectl, "again")
