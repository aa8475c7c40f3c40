"""One ToolSandbox in a world of its own: the Deployment controller, gateways with calls, and impatient people.

Pure and small: every step is a method, and nothing moves by itself.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pinnace_operator.reconcile import registry
from pinnace_operator.reconcile.plan import Load, Observed, OperatorSettings, Plan
from pinnace_operator.reconcile.server import DRAIN_SECONDS

from e2e.simulation.objects import NOW, Object, at, condition
from e2e.simulation.toolsandbox import READY, load, pod, toolsandbox

Version = tuple[str, str]
SCALE = {"minReplicas": 0, "maxReplicas": 5, "targetInFlight": 2, "cooldownSeconds": 20}


@dataclass
class Gateway:
    """One gateway's pod: the configuration that it has read, and its calls."""

    generation: int = 0
    versions: set[Version] = field(default_factory=set)
    calls: dict[Version, int] = field(default_factory=dict)


@dataclass
class World:
    """What is there now. `broken` collects what must never happen."""

    resource: Object
    children: dict[tuple[str, str], Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    gateways: dict[str, Gateway] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    left: dict[Version, int] = field(default_factory=dict)
    seconds: int = 0
    number: int = 0
    broken: list[str] = field(default_factory=list)

    @classmethod
    def create(cls, *, sessions: bool, gateways: int) -> World:
        spec: Object = {"servers": [_server("time", ("v1",)), _server("web", ("v1", "v2"), scale=dict(SCALE))]}
        spec["gateway"] = {"replicas": gateways}
        if sessions:
            spec["sessions"] = {"warm": 2, "max": 6}
        return cls(resource=toolsandbox(**spec))

    # -- the operator ------------------------------------------------------------------------------------------------
    def observe(self) -> Observed:
        return Observed(
            now=NOW + timedelta(seconds=self.seconds),
            settings=OperatorSettings(),
            children=tuple(copy.deepcopy(list(self.children.values()))),
            pods=tuple(copy.deepcopy(list(self.pods.values()))),
            loads=tuple(each for _, each in sorted(self.loads.items())),
            listening_since=NOW,
        )

    def reconcile(self) -> Plan:
        spec = copy.deepcopy(self.resource["spec"])
        plan = registry.reconcile(copy.deepcopy(self.resource), self.observe())
        for each in plan.prune:
            self._prune(each.kind, each.name, each.uid)
        self.secrets |= {each.name for each in plan.secrets}
        for child in plan.children:
            key = (child["kind"], child["metadata"]["name"])
            uid = self.children[key]["metadata"]["uid"] if key in self.children else f"uid-{self._next()}"
            meta = {**child["metadata"], "uid": uid}
            self.children[key] = copy.deepcopy({**child, "metadata": meta})
        self.resource["status"] = copy.deepcopy(dict(plan.status))
        self._expect(self.resource["spec"] == spec, "the spec was written")
        return plan

    def settle(self, most: int = 8) -> None:
        """Reconcile until nothing changes any more at this moment."""
        for _ in range(most):
            before = self._picture()
            self.reconcile()
            if self._picture() == before:
                return
        self.broken.append("it does not come to rest")

    def _prune(self, kind: str, name: str, uid: str) -> None:
        if kind == "Pod":
            self.pods.pop(name, None)
            return
        child = self.children.pop((kind, name))
        self._expect(child["metadata"]["uid"] == uid, "pruned a stranger")
        labels = child["metadata"]["labels"]
        if kind != "Deployment" or "pinnace.dev/version" not in labels:
            return
        version = (labels["pinnace.dev/server"], labels["pinnace.dev/version"])
        patient = self.seconds - self.left.get(version, self.seconds) >= DRAIN_SECONDS
        for gateway, known in self.gateways.items():
            serving = self._is_ready(gateway) and version in known.versions
            self._expect(patient or not (serving or known.calls.get(version)), f"{version} was removed under traffic")

    # -- controllers -------------------------------------------------------------------------------------------------
    def controllers(self) -> None:
        """One round of the Deployment and ReplicaSet controllers and the kubelet."""
        for name, each in list(self.pods.items()):
            if each["metadata"].get("deletionTimestamp"):
                del self.pods[name]
                self.gateways.pop(name, None)
            elif each["status"]["containerStatuses"][0].get("state", {}).get("running"):
                self._become_ready(name)
        for (kind, name), child in list(self.children.items()):
            if kind == "Deployment":
                self._scale(name, child)
        owners = {name for kind, name in self.children if kind == "Deployment"}
        for name, each in self.pods.items():
            if each["metadata"]["owner"] not in owners:
                self._end(name)

    def _scale(self, name: str, child: Object) -> None:
        alive = [
            pod_name for pod_name, each in self.pods.items()
            if each["metadata"]["owner"] == name and not each["metadata"].get("deletionTimestamp")
        ]  # fmt: skip
        wanted = child["spec"]["replicas"]
        for pod_name in alive[wanted:]:
            self._end(pod_name)
        for _ in range(wanted - len(alive)):
            labels = child["spec"]["template"]["metadata"]["labels"]
            pod_name = f"{name}-{self._next()}"
            made = pod(
                labels["pinnace.dev/role"], server=labels.get("pinnace.dev/server", ""),
                version=labels.get("pinnace.dev/version", ""), name=pod_name, ready=False, seconds=self.seconds,
            )  # fmt: skip
            made["metadata"]["owner"] = name
            self.pods[pod_name] = made
            if labels["pinnace.dev/role"] == "gateway":
                self.gateways[pod_name] = Gateway()
                self.sync(pod_name)

    def _become_ready(self, name: str) -> None:
        each = self.pods[name]
        each["status"]["phase"] = "Running"
        each["status"]["conditions"] = copy.deepcopy(READY)
        each["status"]["containerStatuses"][0] |= {"ready": True, "started": True}

    def _end(self, name: str) -> None:
        self.pods[name]["metadata"]["deletionTimestamp"] = at(self.seconds)
        self.pods[name]["status"]["conditions"] = [condition("Ready", "False", seconds=self.seconds)]

    def _is_ready(self, name: str) -> bool:
        return name in self.pods and self.pods[name]["status"]["conditions"][0]["status"] == "True"

    # -- gateways ----------------------------------------------------------------------------------------------------
    def sync(self, name: str) -> None:
        """A gateway reads the configuration."""
        found = self.children.get(("ConfigMap", "tools-gateway"))
        if found is None:
            return
        document = json.loads(found["data"]["gateway.json"])
        gateway = self.gateways[name]
        gateway.generation = document["generation"]
        gateway.versions = {(each["name"], v["name"]) for each in document["servers"] for v in each["versions"]}

    def sync_one(self, number: int) -> None:
        if self.gateways:
            self.sync(sorted(self.gateways)[number % len(self.gateways)])

    def call(self, number: int) -> None:
        """Calls leave for a version that a gateway knows."""
        ready = [name for name in sorted(self.gateways) if self._is_ready(name)]
        if not ready:
            return
        gateway = self.gateways[ready[number % len(ready)]]
        for version in sorted(gateway.versions)[number % 3 :: 3]:
            gateway.calls[version] = gateway.calls.get(version, 0) + 1 + number % 4

    def answer(self) -> None:
        """All calls are answered."""
        for gateway in self.gateways.values():
            gateway.calls.clear()

    def report(self) -> None:
        """Every gateway tells its load."""
        for name, gateway in self.gateways.items():
            if not self._is_ready(name) and not gateway.calls:
                continue
            servers = [self._told(version, gateway) for version in sorted(gateway.versions | gateway.calls.keys())]
            told = load(
                *servers, pod=name, generation=gateway.generation, tools=2 * len(gateway.versions), seconds=self.seconds
            )
            self.loads[name] = told

    def _told(self, version: Version, gateway: Gateway) -> Object:
        server, name = version
        calls = gateway.calls.get(version, 0)
        ready = sum(
            each["metadata"]["labels"].get("pinnace.dev/server") == server
            and each["metadata"]["labels"].get("pinnace.dev/version") == name and self._is_ready(pod_name)
            for pod_name, each in self.pods.items()
        )  # fmt: skip
        split = {"inFlight": calls, "queued": 0} if ready else {"inFlight": 0, "queued": calls}
        return {
            "name": server,
            "version": name,
            "ready": ready,
            "state": "ready" if ready else "absent",
            "tools": 2,
            **split,
        }

    # -- people ------------------------------------------------------------------------------------------------------
    def edit(self, number: int) -> None:
        """A server comes, goes, or changes its versions."""
        servers = {each["name"]: each for each in self.resource["spec"]["servers"]}
        before = self._wanted()
        name = ("time", "web", "wiki", "calc")[number % 4]
        if name in servers and number % 3 == 0 and len(servers) > 1:
            del servers[name]
        elif name in servers:
            versions = (("v1",), ("v2",), ("v1", "v2"), ("v2", "v3"))[number % 5 % 4]
            servers[name] = _server(name, versions, **({"scale": dict(SCALE)} if number % 2 else {}))
        else:
            servers[name] = _server(name, ("v1",))
        self._change(servers=list(servers.values()))
        for version in before - self._wanted():
            self.left[version] = self.seconds
        for version in self._wanted():
            self.left.pop(version, None)

    def warm(self, number: int) -> None:
        if "sessions" in self.resource["spec"]:
            self._change(sessions={"warm": number % 5, "max": 6})

    def suspend(self, wanted: bool) -> None:
        self._change(suspend=wanted)

    def spoil(self) -> None:
        """A spec that only the plan can refuse: two tools are each other's backup."""
        names = [each["name"] for each in self.resource["spec"]["servers"]]
        circle = [
            {"name": f"{names[0]}.a", "backups": [{"tool": "b"}]}, {"name": f"{names[0]}.b", "backups": [{"tool": "a"}]}
        ]  # fmt: skip
        self._change(tools=circle)

    def repair(self) -> None:
        self._change(tools=[])

    def delete_child(self, number: int) -> None:
        if self.children:
            del self.children[sorted(self.children)[number % len(self.children)]]

    def pass_time(self, seconds: int) -> None:
        self.seconds += seconds

    def _change(self, **spec: Any) -> None:
        self.resource["spec"].update(spec)
        self.resource["metadata"]["generation"] += 1

    def _wanted(self) -> set[Version]:
        return {
            (each["name"], version["name"])
            for each in self.resource["spec"]["servers"] for version in each["versions"]
        }  # fmt: skip

    # --
    def _next(self) -> int:
        self.number += 1
        return self.number

    def _picture(self) -> object:
        return copy.deepcopy((self.resource, self.children, self.pods, self.secrets))

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.broken.append(otherwise)


def _server(name: str, versions: tuple[str, ...], **fields: Any) -> Object:
    each = [{"name": version, "weight": 50, "replicas": 1} for version in versions]
    return {"name": name, "catalogue": "time", "versions": each, **fields}
