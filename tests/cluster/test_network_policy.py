"""What passes between pods under NetworkPolicy: packets are run through the rules that we would load."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.cluster.netpol.model import Pod, live_pods, selects
from e2e.cluster.netpol.render import render

WEB = Pod("shop", "web", "198.18.0.10", {"app": "web"}, {("TCP", "http"): 8080})
DB = Pod("shop", "db", "198.18.0.11", {"app": "db"}, {("TCP", "sql"): 5432})
CRON = Pod("ops", "cron", "198.18.0.12", {"app": "cron"})
NAMESPACES = {"shop": {"team": "a"}, "ops": {"team": "b"}}
STRANGER, NODE = "198.18.0.99", "198.18.0.1"


def passes(rules: str, source: str, target: str, port: int = 80, protocol: str = "tcp", hook: str = "forward") -> bool:
    """Whether the first packet of a flow survives `hook`; understands just the statements that we render."""
    chains: dict[str, list[str]] = {}
    for name, body in re.findall(r"^ chain (\w+) \{\n(.*?)^ \}", rules, re.MULTILINE | re.DOTALL):
        chains[name] = [line.strip() for line in body.splitlines()]

    def run(chain: str) -> bool | None:
        for rule in chains[chain]:
            if rule.startswith(("type ", "ct state")):
                continue
            if (jump := re.fullmatch(r"ip ([sd])addr vmap \{ (.*) \}", rule)) is not None:
                side = source if jump[1] == "s" else target
                destinations = dict(pair.split(" : jump ") for pair in jump[2].split(", "))
                if side in destinations and run(destinations[side]) is False:
                    return False
                continue
            *matches, verdict = re.findall(
                r"ip [sd]addr (?:!= )?(?:\{.*?\}|\S+)|(?:tcp|udp|sctp) dport \S+|meta l4proto \w+|"
                r"counter drop|return|jump \w+",
                rule,
            )
            if not all(matches_packet(match) for match in matches):
                continue
            if verdict == "counter drop":
                return False
            if verdict == "return":
                return None
            if run(verdict.removeprefix("jump ")) is False:
                return False
        return None

    def matches_packet(match: str) -> bool:
        if match.startswith("meta"):
            return match.rsplit(maxsplit=1)[-1] == protocol
        if "dport" in match:
            wanted, _, ports = match.split()
            first, _, last = ports.partition("-")
            return wanted == protocol and int(first) <= port <= int(last or first)
        address = source if " saddr " in match else target
        networks = re.findall(r"[\d.]+(?:/\d+)?", match)
        inside = any(ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in networks)
        return inside != ("!=" in match)

    return run(f"hook_{hook}") is not False


def policy(selector: dict[str, Any] | None = None, namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace}, "spec": {"podSelector": selector or {}, **spec}}


@dataclass
class Case:
    name: str
    policies: list[dict[str, Any]]
    packet: tuple[str, str, int, str]
    expected: bool


LABEL_WEB = {"matchLabels": {"app": "web"}}
LABEL_DB = {"matchLabels": {"app": "db"}}
FROM_WEB = policy(LABEL_DB, ingress=[{"from": [{"podSelector": LABEL_WEB}]}])
FROM_TEAM_B = policy(LABEL_DB, ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]}])
FROM_CRON_OF_B = policy(
    LABEL_DB,
    ingress=[
        {"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}, "podSelector": {"matchLabels": {"app": "x"}}}]}
    ],
)
DENY_IN = policy(policyTypes=["Ingress"])
DENY_OUT = policy(policyTypes=["Egress"])
RANGE = policy(LABEL_DB, ingress=[{"ports": [{"port": 100, "endPort": 200}]}])
NAMED = policy(LABEL_DB, ingress=[{"ports": [{"port": "sql"}]}])
UDP = policy(LABEL_DB, ingress=[{"ports": [{"port": 53, "protocol": "UDP"}]}])
ANY_UDP = policy(LABEL_DB, ingress=[{"ports": [{"protocol": "UDP"}]}])
BLOCK = policy(LABEL_DB, ingress=[{"from": [{"ipBlock": {"cidr": "198.18.0.0/24", "except": ["198.18.0.12/32"]}}]}])
OUT_NAMED = policy(
    LABEL_WEB, policyTypes=["Egress"], egress=[{"to": [{"podSelector": LABEL_DB}], "ports": [{"port": "sql"}]}]
)
OUT_BLOCK = policy(
    LABEL_WEB,
    policyTypes=["Egress"],
    egress=[{"to": [{"ipBlock": {"cidr": "198.18.0.11/32"}}], "ports": [{"port": "sql"}]}],
)
V6 = policy(LABEL_DB, ingress=[{"from": [{"ipBlock": {"cidr": "::/0"}}]}])
TCP = "tcp"

CASES = [
    Case("no policy: open", [], (WEB.ip, DB.ip, 1, TCP), True),
    Case("no policy: strangers pass", [], (STRANGER, DB.ip, 1, TCP), True),
    Case("deny all ingress", [DENY_IN], (WEB.ip, DB.ip, 1, TCP), False),
    Case("deny in one namespace leaves the other open", [DENY_IN], (WEB.ip, CRON.ip, 1, TCP), True),
    Case("a pod reaches itself", [DENY_IN, DENY_OUT], (DB.ip, DB.ip, 1, TCP), True),
    Case("the node reaches every pod's policy-free peer", [DENY_IN], (NODE, CRON.ip, 1, TCP), True),
    Case("by label", [FROM_WEB], (WEB.ip, DB.ip, 1, TCP), True),
    Case("by label, other namespace", [FROM_WEB], (CRON.ip, DB.ip, 1, TCP), False),
    Case("by namespace", [FROM_TEAM_B], (CRON.ip, DB.ip, 1, TCP), True),
    Case("by namespace, own namespace is not in it", [FROM_TEAM_B], (WEB.ip, DB.ip, 1, TCP), False),
    Case("namespace and pod must both hold", [FROM_CRON_OF_B], (CRON.ip, DB.ip, 1, TCP), False),
    Case("policies add up", [FROM_WEB, FROM_TEAM_B], (CRON.ip, DB.ip, 1, TCP), True),
    Case("an empty rule lets all in", [policy(LABEL_DB, ingress=[{}])], (CRON.ip, DB.ip, 1, TCP), True),
    Case("no rule lets nobody in", [policy(LABEL_DB, ingress=[])], (WEB.ip, DB.ip, 1, TCP), False),
    Case("first port of a range", [RANGE], (WEB.ip, DB.ip, 100, TCP), True),
    Case("last port of a range", [RANGE], (WEB.ip, DB.ip, 200, TCP), True),
    Case("port after a range", [RANGE], (WEB.ip, DB.ip, 201, TCP), False),
    Case("named port", [NAMED], (WEB.ip, DB.ip, 5432, TCP), True),
    Case("another port than the named", [NAMED], (WEB.ip, DB.ip, 5433, TCP), False),
    Case("UDP port", [UDP], (WEB.ip, DB.ip, 53, "udp"), True),
    Case("UDP does not open TCP", [UDP], (WEB.ip, DB.ip, 53, TCP), False),
    Case("any UDP port", [ANY_UDP], (WEB.ip, DB.ip, 9, "udp"), True),
    Case("block", [BLOCK], (WEB.ip, DB.ip, 1, TCP), True),
    Case("hole of a block", [BLOCK], (CRON.ip, DB.ip, 1, TCP), False),
    Case("an IPv6 block lets no IPv4 in", [V6], (WEB.ip, DB.ip, 1, TCP), False),
    Case("deny all egress", [DENY_OUT], (WEB.ip, CRON.ip, 1, TCP), False),
    Case("deny egress leaves ingress", [DENY_OUT], (CRON.ip, WEB.ip, 1, TCP), True),
    Case("egress to a named port", [OUT_NAMED], (WEB.ip, DB.ip, 5432, TCP), True),
    Case("egress to another port", [OUT_NAMED], (WEB.ip, DB.ip, 80, TCP), False),
    Case("egress to a block with a named port", [OUT_BLOCK], (WEB.ip, DB.ip, 5432, TCP), True),
    Case("egress only: policyTypes absent means ingress too", [policy(egress=[{}])], (CRON.ip, WEB.ip, 1, TCP), False),
    Case("both ends must agree", [OUT_NAMED, DENY_IN], (WEB.ip, DB.ip, 5432, TCP), False),
    Case("an unknown pod is held back while there is a policy", [FROM_WEB], (STRANGER, CRON.ip, 1, TCP), False),
    Case("nothing reaches an unknown pod while there is a policy", [FROM_WEB], (CRON.ip, STRANGER, 1, TCP), False),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_policy_decides_which_packets_pass(case: Case) -> None:
    rules = render([WEB, DB, CRON], NAMESPACES, case.policies)
    assert passes(rules, *case.packet) is case.expected


def test_egress_to_the_node_is_filtered_where_it_arrives() -> None:
    rules = render([WEB], NAMESPACES, [DENY_OUT])
    assert not passes(rules, WEB.ip, NODE, 6443, hook="input")
    assert passes(rules, NODE, NODE, 6443, hook="input")


def test_rules_do_not_depend_on_the_order_of_objects() -> None:
    policies = [FROM_WEB, FROM_TEAM_B, OUT_NAMED]
    assert render([WEB, DB, CRON], NAMESPACES, policies) == render([CRON, DB, WEB], NAMESPACES, policies[::-1])


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
    ],
)
def test_selectors_select_as_kubernetes_does(selector: dict[str, Any], labels: dict[str, str], expected: bool) -> None:
    assert selects(selector, labels) is expected


def resource(uid: str, ip: str | None = None, phase: str = "Running", **spec: Any) -> dict[str, Any]:
    status = {"phase": phase, **({"podIP": ip} if ip else {})}
    return {
        "metadata": {"namespace": "n", "name": uid, "uid": uid},
        "spec": {"containers": [], **spec},
        "status": status,
    }


def test_a_pod_is_known_by_cni_before_the_api_tells_its_address() -> None:
    assert [pod.ip for pod in live_pods([resource("a")], {"198.18.0.20": "a"})] == ["198.18.0.20"]


def test_an_address_from_before_a_restart_does_not_count() -> None:
    old, new = resource("a", ip="198.18.0.20"), resource("b", ip="198.18.0.21")
    found = {pod.ip: pod.name for pod in live_pods([old, new], {"198.18.0.20": "b", "198.18.0.22": "a"})}
    assert found == {"198.18.0.20": "b", "198.18.0.22": "a"}


@pytest.mark.parametrize(
    "gone", [resource("a", "198.18.0.5", "Succeeded"), resource("a", "198.18.0.1", hostNetwork=True), resource("a")]
)
def test_pods_without_an_address_of_their_own_are_left_out(gone: dict[str, Any]) -> None:
    assert live_pods([gone], {}) == []
