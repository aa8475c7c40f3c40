"""The pod template of a job's role: hardened, with the user's bounded overlay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pinnace_operator.api.pod import PodTemplate
from pinnace_operator.builders import environment

USER = 65532
AUDIENCE = "pinnace"
"""Of the token: good for the progress server and for nothing else."""
IDENTITY_DIRECTORY = "/var/run/secrets/pinnace"
CONFIG_MAPS = "/etc/pinnace"
_TOKEN_SECONDS = 3600

_OVERLAY = (
    "nodeSelector",
    "tolerations",
    "affinity",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "serviceAccountName",
    "imagePullSecrets",
    "resourceClaims",
)
"""Fields of podTemplate that go into the pod's spec as they are."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container, or with `init` one that must end well before the others start.

    A `sidecar` starts after those before it, is started again whenever it ends, and ends with the others.
    """

    name: str
    image: str
    command: tuple[str, ...]
    resources: dict[str, Any]
    env: tuple[dict[str, Any], ...]
    init: bool = False
    sidecar: bool = False
    port: int | None = None
    """Where it serves OpenAI's API: it is ready once it lists its models there."""

    @property
    def beside(self) -> bool:
        """Whether it stands among the pod's init containers."""
        return self.init or self.sidecar


def template(
    containers: Sequence[Container],
    *,
    labels: dict[str, str],
    overlay: PodTemplate,
    pull_policy: str,
    config_maps: Sequence[str] = (),
) -> dict[str, Any]:
    """A PodTemplateSpec.

    Args:
        labels: ours; they win over the user's.
        overlay: what the user may add.
        config_maps: names of ConfigMaps to mount at `/etc/pinnace/<name>`.
    """
    extra = overlay.to_manifest()
    names = sorted(set(config_maps))
    claims = [{"name": each["name"]} for each in extra.get("resourceClaims", ())]
    built = [_container(each, extra.get("env", ()), names, claims, pull_policy) for each in containers]
    spec = {
        "initContainers": [one for one, each in zip(built, containers, strict=True) if each.beside],
        "containers": [one for one, each in zip(built, containers, strict=True) if not each.beside],
        # podFailurePolicy needs Never; a failed container ends its attempt and the whole gang starts anew.
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": overlay.termination_grace_period_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": _volumes(names),
        **{field: extra[field] for field in _OVERLAY if extra.get(field)},
    }
    metadata = {
        "labels": {**extra.get("labels", {}), **labels},
        "annotations": {"kubectl.kubernetes.io/default-container": _main(containers), **extra.get("annotations", {})},
    }
    return {"metadata": metadata, "spec": spec}


def _main(containers: Sequence[Container]) -> str:
    return next(each.name for each in containers if not each.beside)


def _container(
    container: Container,
    users_env: Sequence[dict[str, Any]],
    config_maps: Sequence[str],
    claims: list[dict[str, Any]],
    pull_policy: str,
) -> dict[str, Any]:
    resources = {**container.resources, **({"claims": claims} if claims and not container.beside else {})}
    return {
        "name": container.name,
        "image": container.image,
        "imagePullPolicy": pull_policy,
        "command": list(container.command),
        **({"restartPolicy": "Always"} if container.sidecar else {}),
        "env": environment.merged(container.env, users_env),
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # When a process dies without a word (killed for memory), the end of its log becomes the message.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(config_maps),
        **(_serving(container.port) if container.port else {}),
    }


def _serving(port: int) -> dict[str, Any]:
    """Loading a large model takes minutes; a busy server may answer late."""
    ask = {"httpGet": {"path": "/v1/models", "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 10}
    return {
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        "startupProbe": {**ask, "periodSeconds": 2, "failureThreshold": 1800},
        "readinessProbe": {**ask, "periodSeconds": 10, "failureThreshold": 3},
    }


def _mounts(config_maps: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- a path in the pod
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 -- a path in the pod
        {"name": "token", "mountPath": IDENTITY_DIRECTORY, "readOnly": True},
        *(
            {"name": _volume_name(number), "mountPath": f"{CONFIG_MAPS}/{name}", "readOnly": True}
            for number, name in enumerate(config_maps)
        ),
    ]


def _volumes(config_maps: Sequence[str]) -> list[dict[str, Any]]:
    token = {"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}}
    return [
        {"name": "scratch", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        # Shared memory of the processes of a pod (NCCL, data loaders); it counts against the memory limit.
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        {"name": "token", "projected": {"sources": [token]}},
        *({"name": _volume_name(number), "configMap": {"name": name}} for number, name in enumerate(config_maps)),
    ]


def _volume_name(number: int) -> str:
    return f"configmap-{number}"
