"""NetworkPolicy to nft: a pure function. One table, one verdict map per direction, one chain per isolated pod.

Semantics: https://kubernetes.io/docs/concepts/services-networking/network-policies/ (networking.k8s.io/v1, IPv4).
Packets of the node itself always pass (probes), and so does a pod's traffic to itself.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from e2e.cluster.netpol.model import Object, Pod, selects
from e2e.cluster.network import NODE_IP, NODE_POD_RANGE

TABLE = "inet pinnace_netpol"
Rules = dict[str, set[str]]


def render(pods: Iterable[Pod], namespaces: Mapping[str, Mapping[str, str]], policies: Iterable[Object]) -> str:
    """The whole ruleset, which replaces what was loaded in one transaction.

    `namespaces`: labels by name. While there is a policy anywhere, packets from and to pods pass only if both
    ends are known: a pod that started a moment ago is not open before its policies are loaded.
    """
    known, policies = sorted(pods, key=lambda pod: pod.ip), list(policies)
    ingress, egress = _isolated(known, namespaces, policies)
    lines = [f"table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
    for direction, isolated in (("in", ingress), ("out", egress)):
        for ip, rules in sorted(isolated.items()):
            lines += [f" chain {_chain(direction, ip)} {{", f"  ip saddr {ip} ip daddr {ip} return"]
            lines += [f"  {rule}" for rule in sorted(rules)]
            lines += ["  counter drop", " }"]
        side = "daddr" if direction == "in" else "saddr"
        jumps = ", ".join(f"{ip} : jump {_chain(direction, ip)}" for ip in sorted(isolated))
        lines += [f" chain {direction} {{", *([f"  ip {side} vmap {{ {jumps} }}"] if jumps else []), " }"]
    lines += [" chain unknown {", *(_unknown(known) if policies else []), " }"]
    for hook in ("forward", "input"):
        lines += [
            f" chain hook_{hook} {{",
            f"  type filter hook {hook} priority 5; policy accept;",
            "  ct state established,related accept",
            "  jump unknown",
            "  jump out",
            *(["  jump in"] if hook == "forward" else []),
            " }",
        ]
    return "\n".join([*lines, "}"]) + "\n"


def _chain(direction: str, ip: str) -> str:
    return f"{direction}_{ip.replace('.', '_')}"


def _unknown(known: Sequence[Pod]) -> list[str]:
    addresses = ", ".join(sorted({NODE_IP, *(pod.ip for pod in known)}))
    return [f"  ip {side} {NODE_POD_RANGE} ip {side} != {{ {addresses} }} counter drop" for side in ("saddr", "daddr")]


def _isolated(
    pods: Sequence[Pod], namespaces: Mapping[str, Mapping[str, str]], policies: list[Object]
) -> tuple[Rules, Rules]:
    """Rules that let packets pass, by address of each pod that a policy selects, for ingress and egress."""
    ingress: Rules = defaultdict(set)
    egress: Rules = defaultdict(set)
    for policy in policies:
        spec, namespace = policy["spec"], policy["metadata"]["namespace"]
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
        for target in pods:
            if target.namespace != namespace or not selects(spec.get("podSelector", {}), target.labels):
                continue
            if "Ingress" in types:
                rules = ingress[target.ip]
                for rule in spec.get("ingress") or []:
                    for match, _ in _peers(rule.get("from"), "saddr", namespace, pods, namespaces):
                        rules.update(_accept(match, port) for port in _ports(rule, [target]))
            if "Egress" in types:
                rules = egress[target.ip]
                for rule in spec.get("egress") or []:
                    for match, destinations in _peers(rule.get("to"), "daddr", namespace, pods, namespaces):
                        rules.update(_accept(match, port) for port in _ports(rule, destinations))
    return ingress, egress


def _accept(*matches: str) -> str:
    return " ".join([*(match for match in matches if match), "return"])


def _peers(
    peers: list[Object] | None,
    side: str,
    namespace: str,
    pods: Sequence[Pod],
    namespaces: Mapping[str, Mapping[str, str]],
) -> list[tuple[str, Sequence[Pod]]]:
    """Each peer as an nft match, with the pods it covers (named ports are theirs). No peers at all: everybody."""
    if not peers:
        return [("", pods)]
    found: list[tuple[str, Sequence[Pod]]] = []
    for peer in peers:
        block = peer.get("ipBlock")
        if block:
            found += _block(block, side, pods)
            continue
        hits = [pod for pod in pods if _is_peer(pod, peer, namespace, namespaces)]
        if hits:
            found.append((f"ip {side} {{ {', '.join(sorted({pod.ip for pod in hits}))} }}", hits))
    return found


def _block(block: Object, side: str, pods: Sequence[Pod]) -> list[tuple[str, Sequence[Pod]]]:
    network = ipaddress.ip_network(block["cidr"], strict=False)
    if network.version != 4:  # no pod has an IPv6 address
        return []
    holes = [each for each in map(_network, block.get("except") or []) if each.version == 4]
    match = f"ip {side} {network}"
    if holes:
        match += f" ip {side} != {{ {', '.join(str(hole) for hole in ipaddress.collapse_addresses(holes))} }}"
    inside = [pod for pod in pods if _within(pod.ip, network) and not any(_within(pod.ip, hole) for hole in holes)]
    return [(match, inside)]


def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(cidr, strict=False)


def _within(ip: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    return ipaddress.ip_address(ip) in network


def _is_peer(pod: Pod, peer: Object, namespace: str, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], namespaces.get(pod.namespace, {})):
            return False
    elif pod.namespace != namespace:
        return False
    return "podSelector" not in peer or selects(peer["podSelector"], pod.labels)


def _ports(rule: Object, destinations: Sequence[Pod]) -> list[str]:
    """Each port of a rule as an nft match; a named port means what each destination pod calls so. No ports: all."""
    if not rule.get("ports"):
        return [""]
    found = []
    for entry in rule["ports"]:
        protocol, port = entry.get("protocol", "TCP"), entry.get("port")
        if port is None:
            found.append(f"meta l4proto {protocol.lower()}")
        elif isinstance(port, int):
            last = entry.get("endPort", port)
            found.append(f"{protocol.lower()} dport {port}" + (f"-{last}" if last != port else ""))
        else:
            found += [
                f"ip daddr {pod.ip} {protocol.lower()} dport {pod.named_ports[protocol, port]}"
                for pod in destinations
                if (protocol, port) in pod.named_ports
            ]
    return found
