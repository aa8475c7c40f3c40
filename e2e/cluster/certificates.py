"""Every certificate and kubeconfig of a cluster."""

from __future__ import annotations

from e2e.cluster import network as net
from e2e.cluster import pki
from e2e.cluster.paths import Run

SERVER = f"https://{net.NODE_IP}:6443"
#: Kubeconfig file to (user, group): who may do what is RBAC's matter.
CLIENTS = {
    "admin": ("admin", "system:masters"),
    "kcm": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "proxy": ("system:kube-proxy", None),
    "kubelet": (f"system:node:{net.NODE}", "system:nodes"),
    "netpol": ("pinnace:netpol", None),
}


def create(run: Run) -> None:
    """Make three authorities (cluster, front proxy, etcd) and all leaves, unless they exist. `sa` is last."""
    if (run.pki / "sa.pub").exists():
        return
    run.pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    cluster = pki.Authority.create(run.pki, "ca", "kubernetes-ca")
    front = pki.Authority.create(run.pki, "front-proxy-ca", "front-proxy-ca")
    etcd = pki.Authority.create(run.pki, "etcd-ca", "etcd-ca")
    names = ["127.0.0.1", net.NODE_IP, net.SERVICE_FIRST, "localhost", "kubernetes", "kubernetes.default"]
    names += ["kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    cluster.issue("apiserver", "kube-apiserver", server=True, alt_names=names)
    cluster.issue(
        "apiserver-kubelet-client", "kube-apiserver-kubelet-client", organisation="system:masters", client=True
    )
    front.issue("front-proxy-client", "front-proxy-client", client=True)
    etcd.issue("etcd-server", "etcd", server=True, client=True, alt_names=["127.0.0.1", "localhost"])
    etcd.issue("etcd-client", "kube-apiserver", client=True)
    user = f"system:node:{net.NODE}"
    cluster.issue("kubelet-serving", user, organisation="system:nodes", server=True, alt_names=[net.NODE_IP, net.NODE])
    for name, (common_name, group) in CLIENTS.items():
        certificate, key = cluster.issue(name, common_name, organisation=group, client=True)
        pki.kubeconfig(run.root / f"{name}.kubeconfig", SERVER, cluster.pem, certificate, key)
    pki.signing_key(run.pki, "sa")
