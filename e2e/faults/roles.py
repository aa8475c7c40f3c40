"""Being the operator's service account with exactly the rights that the chart gives it."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import yaml

from e2e.apiserver import BIN, ApiServer
from e2e.faults.api import Api
from e2e.faults.cluster import ROOT, Hands

RBAC = "/apis/rbac.authorization.k8s.io/v1"
_KINDS = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
}


def install(api: Api, namespace: str, watch_namespaces: tuple[str, ...]) -> None:
    """Apply what the chart renders of ServiceAccounts, roles and bindings, and nothing else of it."""
    command: list[str | Path] = [BIN / "helm", "template", "pinnace", ROOT / "charts/pinnace", "--namespace", namespace]
    command += ["--set-json", f"watchNamespaces={json.dumps(watch_namespaces)}"]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for manifest in filter(None, yaml.safe_load_all(rendered)):
        kind, meta = manifest["kind"], manifest["metadata"]
        if kind == "ServiceAccount":
            api.apply(f"/api/v1/namespaces/{namespace}/serviceaccounts/{meta['name']}", manifest)
        elif kind in _KINDS:
            scope = f"/namespaces/{meta['namespace']}" if kind in ("Role", "RoleBinding") else ""
            api.apply(f"{RBAC}{scope}/{_KINDS[kind]}/{meta['name']}", manifest)


def service_account_kubeconfig(
    hands: Hands, server: ApiServer, directory: Path, name: str = "pinnace-operator"
) -> Path:
    """A kubeconfig with a token of that ServiceAccount, as its pod would have one."""
    path = f"/api/v1/namespaces/{hands.namespace}/serviceaccounts/{name}/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = hands.api.create(path, asked)["status"]["token"]
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "sa",
        "contexts": [{"name": "sa", "context": {"cluster": "sa", "user": "sa"}}],
        "users": [{"name": "sa", "user": {"token": token}}],
        "clusters": [
            {
                "name": "sa",
                "cluster": {
                    "server": server.url,
                    "certificate-authority-data": base64.b64encode(server.ca.pem).decode(),
                },
            }
        ],
    }  # fmt: skip
    kubeconfig = directory / "service-account.kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    kubeconfig.chmod(0o600)
    return kubeconfig
