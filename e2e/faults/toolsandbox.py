"""The part of a cluster that a ToolSandbox needs beside a bare API server: hands that play the Deployment controller,
the kubelet, the gateways and the garbage collector."""

from __future__ import annotations

import base64
import datetime
import json
import ssl
from dataclasses import dataclass
from typing import Any

import httpx

from e2e.faults.api import EVENTS, PODS, SECRETS, Object, eventually
from e2e.faults.cluster import Hands

SANDBOXES = "/apis/pinnace.dev/v1alpha1/namespaces/{}/toolsandboxes"
PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
}
OURS = "app.kubernetes.io/managed-by=pinnace"


@dataclass
class SandboxHands:
    """Plays users and controllers for the ToolSandbox `tools` in one namespace."""

    hands: Hands
    name: str = "tools"

    @property
    def path(self) -> str:
        return f"{SANDBOXES.format(self.hands.namespace)}/{self.name}"

    # -- users ---------------------------------------------------------------------------------------------------------
    def submit(self, *servers: Object, **spec: Any) -> Object:
        manifest = {
            "apiVersion": "pinnace.dev/v1alpha1", "kind": "ToolSandbox",
            "metadata": {"name": self.name, "namespace": self.hands.namespace},
            "spec": {"servers": list(servers) or [{"name": "time", "catalogue": "time"}], **spec},
        }  # fmt: skip
        return self.hands.api.create(SANDBOXES.format(self.hands.namespace), manifest)

    def edit(self, **spec: Any) -> Object:
        return self.hands.api.merge(self.path, {"spec": spec})

    def get(self) -> Object:
        return self.hands.api.get(self.path) or {}

    def status(self) -> Object:
        found: Object = self.get().get("status") or {}
        return found

    def condition(self, type_: str = "Ready") -> tuple[str, str]:
        """(status, reason)."""
        conditions = self.status().get("conditions") or []
        return next(((each["status"], each["reason"]) for each in conditions if each["type"] == type_), ("", ""))

    def server(self, name: str, version: str = "v1") -> Object:
        """The entry of status.servers, or an empty one."""
        entries = self.status().get("servers") or []
        return next((each for each in entries if (each["name"], each["version"]) == (name, version)), {})

    def wait_condition(self, status: str, reason: str, type_: str = "Ready") -> None:
        eventually(
            f"{type_} is {status} with {reason}", lambda: self.condition(type_) == (status, reason) or None, timeout=30
        )

    def observed(self) -> bool:
        """Whether the status is about the present spec."""
        return bool(self.status().get("observedGeneration") == self.get()["metadata"]["generation"])

    # -- children ------------------------------------------------------------------------------------------------------
    def child(self, kind: str, name: str) -> Object | None:
        return self.hands.api.get(f"{PATHS[kind].format(self.hands.namespace)}/{name}")

    def wait_child(self, kind: str, name: str) -> Object:
        return eventually(f"{kind} {name}", lambda: self.child(kind, name))

    def children(self) -> set[tuple[str, str]]:
        return {
            (kind, each["metadata"]["name"])
            for kind, path in PATHS.items()
            for each in self.hands.api.items(path.format(self.hands.namespace), labelSelector=OURS)
        }

    def delete_child(self, kind: str, name: str) -> None:
        self.hands.api.delete(f"{PATHS[kind].format(self.hands.namespace)}/{name}")

    def configuration(self) -> Object:
        """gateway.json as it is now."""
        found = self.child("ConfigMap", f"{self.name}-gateway")
        document: Object = json.loads(found["data"]["gateway.json"]) if found else {}
        return document

    def configured(self) -> set[tuple[str, str]]:
        """Servers and versions that gateways are told of."""
        return {
            (each["name"], version["name"])
            for each in self.configuration().get("servers", []) for version in each["versions"]
        }  # fmt: skip

    def secret(self, name: str) -> Object | None:
        return self.hands.api.get(f"{SECRETS.format(self.hands.namespace)}/{name}")

    # -- Deployment controller and kubelet -----------------------------------------------------------------------------
    def run(self, deployment: str, *, ready: bool = True, state: Object | None = None, suffix: str = "0") -> Object:
        """A pod of that Deployment, started by the kubelet (`state` of its first container, else running)."""
        found = self.wait_child("Deployment", deployment)
        template = found["spec"]["template"]
        pod = self.hands.api.create(
            PODS.format(self.hands.namespace),
            {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "namespace": self.hands.namespace, "name": f"{deployment}-{suffix}",
                    "labels": template["metadata"]["labels"],
                },
                "spec": {"serviceAccountName": "default", **template["spec"]},
            },
        )  # fmt: skip
        self.set_pod(pod, ready=ready, state=state)
        return pod

    def set_pod(self, pod: Object, *, ready: bool, state: Object | None = None, started: bool | None = None) -> None:
        """What the kubelet says about a pod."""
        running = {"running": {"startedAt": _now()}}
        status: Object = {
            "phase": "Pending" if state and "waiting" in state else "Running", "startTime": _now(),
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": _now()},
                {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": _now()},
            ],
            "containerStatuses": [
                {
                    "name": each["name"], "image": each["image"], "imageID": "", "restartCount": 0, "ready": ready,
                    "started": ready if started is None else started, "state": state or running,
                }
                for each in pod["spec"]["containers"]
            ],
        }  # fmt: skip
        path = f"{PODS.format(self.hands.namespace)}/{pod['metadata']['name']}/status"
        self.hands.api.merge(path, {"status": status})

    def living_pods(self) -> list[str]:
        found = self.hands.api.items(PODS.format(self.hands.namespace))
        return [each["metadata"]["name"] for each in found if not each["metadata"].get("deletionTimestamp")]

    def delete_pod(self, name: str) -> None:
        self.hands.api.delete(f"{PODS.format(self.hands.namespace)}/{name}", gracePeriodSeconds=0)

    def events(self) -> list[tuple[str, str]]:
        uid = self.get()["metadata"]["uid"]
        found = self.hands.api.items(EVENTS.format(self.hands.namespace), fieldSelector=f"involvedObject.uid={uid}")
        return [(each["reason"], each["message"]) for each in found]


@dataclass
class GatewayReporter:
    """A gateway's pod, as it sees the operator."""

    sandbox: SandboxHands
    pod: Object
    client: httpx.Client

    @classmethod
    def connect(cls, sandbox: SandboxHands, pod: Object, port: int) -> GatewayReporter:
        secret = eventually("the CA", sandbox.hands.ca)
        context = ssl.create_default_context(cadata=base64.b64decode(secret["data"]["ca.crt"]).decode())
        return cls(sandbox, pod, httpx.Client(base_url=f"https://localhost:{port}", verify=context))

    def token(self) -> str:
        return pod_token(self.sandbox.hands, self.pod, f"{self.sandbox.name}-gateway")

    def report(self, *servers: Object, **fields: Any) -> Object:
        meta = self.sandbox.get()["metadata"]
        return {
            "kind": "ToolSandbox", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"],
            "pod": self.pod["metadata"]["name"], "generation": meta["generation"], "tools": 2 * len(servers),
            "servers": list(servers), **fields,
        }  # fmt: skip

    def post(self, *servers: Object, token: str | None = None, **fields: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.token()}"}
        return self.client.post("/v1/load", json=self.report(*servers, **fields), headers=headers)


def pod_token(hands: Hands, pod: Object, account: str, audience: str = "pinnace") -> str:
    """A projected token of that pod, as the kubelet would get it."""
    meta = pod["metadata"]
    request = {
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": [audience],
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]},
        },
    }  # fmt: skip
    path = f"{PATHS['ServiceAccount'].format(hands.namespace)}/{account}/token"
    return str(hands.api.create(path, request)["status"]["token"])


def serves(name: str, version: str = "v1", **fields: Any) -> Object:
    """What a gateway says about a version that is fine."""
    return {"name": name, "version": version, "ready": 1, "state": "ready", "tools": 2, **fields}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
