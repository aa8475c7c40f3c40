"""NetworkPolicy on real packets: what is closed, what stays open, and that a new pod is neither open nor cut off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster import Cluster
from e2e.kube import CommandError, Kubectl
from e2e.scenarios import pods

pytestmark = pytest.mark.cluster
Object = dict[str, Any]


def policy(name: str, app: str, **spec: Any) -> Object:
    selector = {"podSelector": {"matchLabels": {"app": app}}}
    meta = {"name": name}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": {**selector, **spec},
    }


DNS = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
FRIENDS = [{"podSelector": {"matchLabels": {"friend": "yes"}}}]


@pytest.fixture(scope="module")
def town(cluster: Cluster) -> Iterator[Kubectl]:
    """A namespace with a server (a service too), a friend and a stranger."""
    kubectl = Kubectl(cluster.kubeconfig, "policy-town")
    kubectl.run("create", "namespace", "policy-town")
    kubectl.wait("service account", lambda: kubectl.get("serviceaccount", "default"), 30, 0.1)
    friend = pods.sleeper("friend")
    friend["metadata"]["labels"]["friend"] = "yes"
    kubectl.apply(pods.web("server"), pods.service("server", {"app": "server"}), friend, pods.sleeper("stranger"))
    kubectl.run("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    yield kubectl
    kubectl.run("delete", "namespace", "policy-town", "--wait=false")


@pytest.fixture
def policies(town: Kubectl) -> Iterator[Kubectl]:
    """The town, open again afterwards."""
    yield town
    town.run("delete", "networkpolicy", "--all")
    town.wait("open town", lambda: reaches(town, "stranger", "http://server"), 10, 0.1)


def reaches(kubectl: Kubectl, source: str, url: str) -> bool:
    try:
        kubectl.run("exec", source, "--", "timeout", "1", "wget", "-qO-", url)
    except CommandError:
        return False
    return True


def becomes(kubectl: Kubectl, source: str, url: str, open_: bool) -> None:
    kubectl.wait(f"{source} to {url}: {open_}", lambda: reaches(kubectl, source, url) is open_, 15, 0.1)


def test_ingress_is_denied_but_to_friends(policies: Kubectl) -> None:
    policies.apply(policy("friends", "server", ingress=[{"from": FRIENDS, "ports": [{"port": "http"}]}]))
    becomes(policies, "stranger", "http://server", False)
    becomes(policies, "friend", "http://server", True)


def test_a_port_range_is_open_and_no_other_port(policies: Kubectl) -> None:
    policies.apply(policy("range", "server", ingress=[{"ports": [{"port": 8000, "endPort": 8100}]}]))
    becomes(policies, "stranger", "http://server", True)
    policies.apply(policy("range", "server", ingress=[{"ports": [{"port": 8000, "endPort": 8079}]}]))
    becomes(policies, "stranger", "http://server", False)


def test_egress_is_denied_while_names_still_resolve(policies: Kubectl) -> None:
    policies.apply(policy("names", "stranger", policyTypes=["Egress"], egress=[DNS]))
    becomes(policies, "stranger", "http://server", False)
    name = "server.policy-town.svc.cluster.local"
    assert "Address" in policies.run("exec", "stranger", "--", "nslookup", name)
    becomes(policies, "friend", "http://server", True)


def test_egress_to_the_api_server_is_filtered(policies: Kubectl) -> None:
    def connects() -> bool:
        # Plain HTTP: an API server that is reached says that this was a bad request.
        script = "timeout 2 wget -qO- http://198.19.0.1:443 2>&1 | grep -q 400"
        try:
            policies.run("exec", "stranger", "--", "sh", "-c", script)
        except CommandError:
            return False
        return True

    assert connects()
    policies.apply(policy("mute", "stranger", policyTypes=["Egress"]))
    policies.wait("closed", lambda: not connects(), 15, 0.1)


def test_a_block_has_holes(policies: Kubectl) -> None:
    stranger = policies.get("pod", "stranger")
    assert stranger
    block = {"cidr": "198.18.0.0/24", "except": [f"{stranger['status']['podIP']}/32"]}
    policies.apply(policy("block", "server", ingress=[{"from": [{"ipBlock": block}]}]))
    becomes(policies, "stranger", "http://server", False)
    becomes(policies, "friend", "http://server", True)


def test_probes_of_a_closed_pod_stay_green(policies: Kubectl) -> None:
    policies.apply(policy("closed", "server", policyTypes=["Ingress", "Egress"]))
    becomes(policies, "friend", "http://server", False)
    server = policies.get("pod", "server")
    assert server
    ready = [each["status"] for each in server["status"]["conditions"] if each["type"] == "Ready"]
    assert ready == ["True"]


def test_a_new_pod_is_closed_from_its_first_packet(policies: Kubectl) -> None:
    server = policies.get("pod", "server")
    assert server
    address = f"{server['status']['podIP']}:8080"
    policies.apply(policy("mute", "mute", policyTypes=["Egress"]))
    names = [f"mute-{number}" for number in range(4)]
    script = f"timeout 1 wget -qO- http://{address} && echo LEAK; exit 0"
    policies.apply(*(pods.pod(name, script, {"app": "mute"}) for name in names))
    for name in names:
        policies.run("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=60s")
        assert "LEAK" not in policies.run("logs", name)


def test_a_new_pod_that_may_talk_is_not_held_up(policies: Kubectl) -> None:
    policies.apply(policy("elsewhere", "nobody", policyTypes=["Ingress", "Egress"]))
    server = policies.get("pod", "server")
    assert server
    names = [f"quick-{number}" for number in range(4)]
    # The very first packet, with no time for TCP to send it again.
    script = f"timeout 0.9 wget -qO- http://{server['status']['podIP']}:8080"
    policies.apply(*(pods.pod(name, script) for name in names))
    for name in names:
        policies.run("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=60s")
