"""What NetworkPolicy enforcement knows of pods, namespaces and policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod with an address of its own (no host network)."""

    namespace: str
    name: str
    ip: str
    labels: Mapping[str, str] = field(default_factory=dict)
    #: (protocol, name) to number, of all containers and sidecars.
    named_ports: Mapping[tuple[str, str], int] = field(default_factory=dict)


def live_pods(resources: Iterable[Object], given: Mapping[str, str]) -> list[Pod]:
    """Every pod that packets can be from or for, once per address.

    `given`: address to pod uid, as CNI recorded it. It is right when the API still tells an address from before a
    restart, or none yet; the API's word counts for addresses of which CNI knows nothing.
    """
    found: dict[str, Pod] = {}
    by_uid: dict[str, list[str]] = {}
    for ip, uid in given.items():
        by_uid.setdefault(uid, []).append(ip)
    for resource in resources:
        recorded = by_uid.get(resource["metadata"].get("uid", ""), [])
        for ip in recorded or [resource.get("status", {}).get("podIP")]:
            pod = pod_from(resource, ip) if ip else None
            if pod and (recorded or ip not in given):
                found[pod.ip] = pod
    return list(found.values())


def pod_from(resource: Object, ip: str) -> Pod | None:
    """The pod of an API object at address `ip`, or None when no packet can be its: host network, or it has ended."""
    spec, status, meta = resource["spec"], resource.get("status", {}), resource["metadata"]
    if spec.get("hostNetwork") or status.get("phase") in {"Succeeded", "Failed"}:
        return None
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    ports = {
        (port.get("protocol", "TCP"), port["name"]): port["containerPort"]
        for container in containers
        for port in container.get("ports", [])
        if "name" in port
    }
    return Pod(meta["namespace"], meta["name"], ip, meta.get("labels", {}), ports)


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects something with `labels`; an empty one selects everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(
        _holds(e["key"], e["operator"], e.get("values", []), labels) for e in selector.get("matchExpressions", [])
    )


def _holds(key: str, operator: str, values: list[str], labels: Mapping[str, str]) -> bool:
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(f"unknown operator {operator!r} in a label selector")
