"""The gateway's objects: Deployment, Service, and the few rights that it has."""

from __future__ import annotations

from typing import Any

from pinnace_operator.api.toolgateway import AuthMode
from pinnace_operator.api.toolsandbox import ToolSandboxSpec
from pinnace_operator.builders import environment, workload
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.toolsandbox import (
    GATEWAY,
    GATEWAY_PORT,
    KEY_DIRECTORY,
    Installation,
    Names,
    drain_seconds,
)

Object = dict[str, Any]

_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}


def gateway(identity: Identity) -> workload.Workload:
    return workload.Workload(identity=identity, name=Names(identity.name).gateway, role=GATEWAY)


def deployment(identity: Identity, spec: ToolSandboxSpec, *, replicas: int, installation: Installation) -> Object:
    """The gateways. They alone have a token of the Kubernetes API: to watch their ConfigMap and the endpoints."""
    names = Names(identity.name)
    grace = drain_seconds(spec)
    volumes = [*workload.SCRATCH_VOLUMES, workload.REPORT_TOKEN_VOLUME, key_volume(names)]
    mounts = [workload.TMP, workload.SHM, workload.REPORT_TOKEN, key_mount()]
    if spec.gateway.auth.mode is AuthMode.TOKEN:
        secret = spec.gateway.auth.secret_name or names.tokens
        volumes.append({"name": "tokens", "secret": {"secretName": secret, "defaultMode": 0o440}})
        mounts.append({"name": "tokens", "mountPath": f"{KEY_DIRECTORY}/tokens", "readOnly": True})
    resources = spec.gateway.resources
    container = workload.container(
        "gateway", installation.tools_image,
        command=("pinnace", "tools", "gateway"), args=("--configmap", names.gateway, "--drain", str(grace)),
        port=GATEWAY_PORT, pull_policy=installation.pull_policy,
        env=_environment(identity, spec, installation), mounts=mounts,
        resources=resources.to_manifest() if resources else _RESOURCES,
    )  # fmt: skip
    pod = workload.pod(
        [workload.with_probes(container)], volumes=volumes, grace_seconds=grace, api_token=True,
        service_account=names.gateway, pull_secrets=[each.name for each in spec.image_pull_secrets],
    )  # fmt: skip
    return workload.deployment(gateway(identity), pod, replicas=replicas)


def service(identity: Identity) -> Object:
    return workload.service(gateway(identity), port=GATEWAY_PORT, name=Names(identity.name).service)


def disruption_budget(identity: Identity) -> Object:
    return workload.disruption_budget(gateway(identity), Names(identity.name).gateway)


def rights(identity: Identity) -> list[Object]:
    """ServiceAccount, Role and RoleBinding. The operator holds each of these rights itself: it can grant no others."""
    name = Names(identity.name).gateway
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    read = ["get", "list", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
    ]
    return [
        {
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": gateway(identity).metadata(),
            "automountServiceAccountToken": False,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": gateway(identity).metadata(),
            "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": gateway(identity).metadata(), "roleRef": reference,
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": identity.namespace}],
        },
    ]  # fmt: skip


def key_volume(names: Names, *, mode: int = 0o440) -> Object:
    """The key between gateway and sandboxes."""
    return {"name": "key", "secret": {"secretName": names.keys, "defaultMode": mode}}


def key_mount() -> Object:
    # A file of its own: below a mounted Secret no directory of tokens could be mounted.
    return {"name": "key", "mountPath": f"{KEY_DIRECTORY}/key", "subPath": "key", "readOnly": True}


def _environment(identity: Identity, spec: ToolSandboxSpec, installation: Installation) -> list[Object]:
    plain = environment.plain
    return [
        plain("HOME", "/tmp"),  # noqa: S108 -- a path in the pod
        {"name": "PINNACE_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        plain("PINNACE_NAMESPACE", identity.namespace),
        plain("PINNACE_RUN_PATH", identity.run_path),
        *environment.storage(spec.storage, installation.storage_defaults, secret=spec.storage.secret_name),
        *environment.progress(installation.progress_url, installation.progress_ca),
    ]
