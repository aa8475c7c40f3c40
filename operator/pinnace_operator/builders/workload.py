"""What a service is made of: Deployments with hardened pods, Services, and PodDisruptionBudgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pinnace_operator.builders.identity import ROLE, UID, Identity
from pinnace_operator.builders.pod import AUDIENCE, IDENTITY_DIRECTORY, USER

Object = dict[str, Any]

SERVER, VERSION = "pinnace.dev/server", "pinnace.dev/version"
"""Labels of what belongs to one tool server, and to one of its versions."""
PRE_STOP_SECONDS = 3
"""Between the decision that a pod ends and its SIGTERM: endpoints and gateways follow meanwhile; no new call comes."""
_TOKEN_SECONDS = 3600

CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One Deployment: its name, whose it is, and what tells its pods from those of the others."""

    identity: Identity
    name: str
    role: str
    own_labels: Mapping[str, str] = field(default_factory=dict)
    """More labels than the role, such as the server's and the version's."""

    @property
    def labels(self) -> dict[str, str]:
        return {**self.identity.labels(self.role), **self.own_labels}

    @property
    def selector(self) -> dict[str, str]:
        """Labels that never change, because a Deployment's selector can't."""
        return selector(self.identity, self.role, self.own_labels)

    def metadata(self, name: str | None = None) -> Object:
        return metadata(self.identity, name or self.name, self.labels)


def selector(identity: Identity, role: str | None = None, labels: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of all pods of a resource, or of one role, or of one server."""
    wanted = {UID: identity.uid, **({ROLE: role} if role else {})}
    return {**wanted, **(labels or {})}


def metadata(identity: Identity, name: str, labels: Mapping[str, str]) -> Object:
    return {
        "name": name,
        "namespace": identity.namespace,
        "labels": dict(labels),
        "ownerReferences": [identity.owner_reference()],
    }


def deployment(
    workload: Workload, pod: Object, *, replicas: int, annotations: Mapping[str, str] | None = None
) -> Object:
    """Updates never take a pod away before its successor is ready.

    Args:
        pod: the pod's spec; its first container is the one that `kubectl logs` shows.
        annotations: more ones of the pods; a change starts them anew.
    """
    shown = {"kubectl.kubernetes.io/default-container": pod["containers"][0]["name"], **(annotations or {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": workload.metadata(),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": workload.selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "template": {"metadata": {"labels": workload.labels, "annotations": shown}, "spec": pod},
        },
    }


def service(workload: Workload, *, port: int, name: str | None = None, headless: bool = False) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": workload.metadata(name),
        "spec": {
            **({"clusterIP": "None"} if headless else {}),
            "selector": workload.selector,
            "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }


def disruption_budget(workload: Workload, name: str) -> Object:
    """A drained node takes one pod at a time, and those that are broken anyway without asking."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": workload.metadata(name),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": workload.selector},
        },
    }


def pod(
    containers: Sequence[Object],
    *,
    volumes: Sequence[Object],
    grace_seconds: int,
    service_account: str | None = None,
    api_token: bool = False,
    runtime_class: str | None = None,
    pull_secrets: Sequence[str] = (),
) -> Object:
    """A pod of the restricted Pod Security level, without a token of the Kubernetes API unless `api_token`."""
    return {
        "containers": list(containers),
        "terminationGracePeriodSeconds": grace_seconds + PRE_STOP_SECONDS,
        "automountServiceAccountToken": api_token,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": list(volumes),
        **({"serviceAccountName": service_account} if service_account else {}),
        **({"runtimeClassName": runtime_class} if runtime_class else {}),
        **({"imagePullSecrets": [{"name": each} for each in pull_secrets]} if pull_secrets else {}),
    }


def container(  # noqa: PLR0913 -- a container, field by field
    name: str,
    image: str,
    *,
    pull_policy: str,
    env: Sequence[Object],
    resources: Mapping[str, Any],
    mounts: Sequence[Object],
    command: Sequence[str] = (),
    args: Sequence[str] = (),
    port: int | None = None,
    user: int = USER,
) -> Object:
    """A container that may write nothing but its mounts; probes are added by `with_probes`."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": pull_policy,
        **({"command": list(command)} if command else {}),
        **({"args": list(args)} if args else {}),
        "env": list(env),
        "resources": dict(resources),
        "securityContext": {**CONTAINER_SECURITY, "runAsUser": user, "runAsGroup": user},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **({"ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}]} if port else {}),
        "volumeMounts": list(mounts),
    }


def with_probes(container: Object, *, ready_seconds: int = 2) -> Object:
    """Probes of our own processes. `started` turns true with the first success of /readyz and tells a pod that is not
    ready yet from one that is not ready any more."""
    return {
        **container,
        "startupProbe": {**_http("/readyz"), "periodSeconds": 1, "failureThreshold": 300},
        "readinessProbe": {**_http("/readyz"), "periodSeconds": ready_seconds, "failureThreshold": 2},
        "livenessProbe": {**_http("/healthz"), "periodSeconds": 10, "failureThreshold": 6},
        **stopping(),
    }


def with_tcp_probes(container: Object) -> Object:
    """Probes of an image that promises nothing but its port."""
    port = {"tcpSocket": {"port": "http"}}
    return {
        **container,
        "startupProbe": {**port, "periodSeconds": 1, "failureThreshold": 300},
        "readinessProbe": {**port, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {**port, "periodSeconds": 10, "failureThreshold": 6},
        **stopping(),
    }


def stopping() -> Object:
    return {"lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}}}


def _http(path: str) -> Object:
    return {"httpGet": {"path": path, "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 2}


TMP: Object = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 -- a path in the pod
SHM: Object = {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108 -- a path in the pod
SCRATCH_VOLUMES: tuple[Object, ...] = (
    {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    # Browsers and numeric libraries share memory through it; it counts against the memory limit.
    {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
)

REPORT_TOKEN: Object = {"name": "report-token", "mountPath": IDENTITY_DIRECTORY, "readOnly": True}
REPORT_TOKEN_VOLUME: Object = {
    "name": "report-token",
    "projected": {
        "sources": [
            {"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}}
        ]
    },
}
