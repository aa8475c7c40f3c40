"""The programs of the cluster: how each is started, what it waits for and how its health is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field

from e2e.cluster import config
from e2e.cluster import network as net
from e2e.cluster.paths import BIN, COMPONENT_MARK, RUN_MARK, Run


@dataclass(frozen=True)
class Component:
    """One supervised program."""

    name: str
    command: list[str]
    #: A URL that answers 200 when it is healthy, or `unix:PATH` of a socket that accepts.
    health: str
    #: Start only when these are healthy. Only the start: a program outlives a restart of what it needed.
    after: list[str] = field(default_factory=list)
    #: What its configuration file says; with another text it is started anew.
    configuration: str = ""

    def environment(self, run: Run) -> dict[str, str]:
        keep = {name: os.environ[name] for name in ("PATH", "LANG", "PINNACE_CACHE") if name in os.environ}
        mine = {RUN_MARK: str(run.root), COMPONENT_MARK: self.name, "HOME": str(run.root)}
        # Containers' shims are started by containerd and find runc on PATH.
        return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **keep, **mine}

    def start(self, run: Run) -> subprocess.Popen[bytes]:
        """Run it in a session of its own; what it says goes to the end of its log. Raises OSError."""
        run.logs.mkdir(parents=True, exist_ok=True)
        with (run.logs / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                self.command, env=self.environment(run), cwd=run.root,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip


def load(run: Run) -> list[Component]:
    return [Component(**each) for each in json.loads(run.components.read_text())]


def dump(components: list[Component]) -> str:
    return json.dumps([asdict(each) for each in components], indent=1)


def all_components(run: Run) -> list[Component]:
    """In the order they are started; `down` stops them the other way round."""
    return [
        _etcd(run),
        _apiserver(run),
        _containerd(run),
        _kcm(run),
        _scheduler(run),
        _kubelet(run),
        _proxy(run),
        _netpol(run),
    ]


def _etcd(run: Run) -> Component:
    client, peer, pki = "https://127.0.0.1:2379", "https://127.0.0.1:2380", run.pki
    return Component(
        "etcd",
        [
            f"{BIN}/etcd", "--name=n1", f"--data-dir={run.root}/etcd",
            # A crash of the machine may cost the state, a crash of a program does not: right for what `up` rebuilds.
            "--unsafe-no-fsync",
            # The apiserver compacts every five minutes; the quota only bounds what a runaway writer can do to the disk.
            "--quota-backend-bytes=1073741824", "--snapshot-count=10000", "--max-wals=3", "--max-snapshots=2",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=n1={peer}",
            "--listen-metrics-urls=http://127.0.0.1:2381",
            "--client-cert-auth", f"--trusted-ca-file={pki}/etcd-ca.crt",
            f"--cert-file={pki}/etcd-server.crt", f"--key-file={pki}/etcd-server.key",
            "--peer-client-cert-auth", f"--peer-trusted-ca-file={pki}/etcd-ca.crt",
            f"--peer-cert-file={pki}/etcd-server.crt", f"--peer-key-file={pki}/etcd-server.key",
        ],
        health="http://127.0.0.1:2381/health",
    )  # fmt: skip


def _apiserver(run: Run) -> Component:
    pki = run.pki
    return Component(
        "apiserver",
        [
            f"{BIN}/kube-apiserver", "--etcd-servers=https://127.0.0.1:2379", f"--etcd-cafile={pki}/etcd-ca.crt",
            f"--etcd-certfile={pki}/etcd-client.crt", f"--etcd-keyfile={pki}/etcd-client.key",
            f"--bind-address={net.NODE_IP}", f"--advertise-address={net.NODE_IP}", "--secure-port=6443",
            f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt", "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction", "--anonymous-auth=false", "--allow-privileged=true",
            f"--service-cluster-ip-range={net.SERVICE_RANGE}", "--event-ttl=1h",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
            f"--kubelet-certificate-authority={pki}/ca.crt", "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy-client", "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
            f"--proxy-client-key-file={pki}/front-proxy-client.key",
            # Webhooks and aggregated APIs go straight to pods: no dependence on kube-proxy.
            "--enable-aggregator-routing=true", "--profiling=false", "--shutdown-delay-duration=0s",
        ],
        health=f"https://{net.NODE_IP}:6443/readyz",
    )  # fmt: skip


def _containerd(run: Run) -> Component:
    return Component(
        "containerd",
        [f"{BIN}/containerd", "-c", str(run.containerd_config)],
        f"unix:{run.socket}",
        configuration=config.containerd(run),
    )


def _kcm(run: Run) -> Component:
    kubeconfig = f"{run.root}/kcm.kubeconfig"
    return Component(
        "kcm",
        [
            f"{BIN}/kube-controller-manager", f"--kubeconfig={kubeconfig}", f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}", "--bind-address=127.0.0.1", "--leader-elect=false",
            "--use-service-account-credentials", f"--service-account-private-key-file={run.pki}/sa.key",
            f"--root-ca-file={run.pki}/ca.crt", f"--cluster-signing-cert-file={run.pki}/ca.crt",
            f"--cluster-signing-key-file={run.pki}/ca.key", f"--service-cluster-ip-range={net.SERVICE_RANGE}",
            f"--cluster-cidr={net.POD_RANGE}", "--allocate-node-cidrs=false", "--profiling=false",
        ],
        health="https://127.0.0.1:10257/healthz",
        # Before the RBAC bootstrap is done it exits with "forbidden" on its first request.
        after=["apiserver"],
    )  # fmt: skip


def _scheduler(run: Run) -> Component:
    kubeconfig = f"{run.root}/scheduler.kubeconfig"
    return Component(
        "scheduler",
        [
            f"{BIN}/kube-scheduler", f"--kubeconfig={kubeconfig}", f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}", "--bind-address=127.0.0.1",
            "--leader-elect=false", "--profiling=false",
        ],
        health="https://127.0.0.1:10259/healthz",
        after=["apiserver"],
    )  # fmt: skip


def _kubelet(run: Run) -> Component:
    return Component(
        "kubelet",
        [
            f"{BIN}/kubelet", f"--config={run.root}/kubelet.yaml", f"--kubeconfig={run.root}/kubelet.kubeconfig",
            f"--root-dir={run.kubelet}", f"--hostname-override={net.NODE}", f"--node-ip={net.NODE_IP}",
        ],
        health="http://127.0.0.1:10248/healthz",
        after=["apiserver", "containerd"],
        configuration=json.dumps(config.kubelet(run), indent=1),
    )  # fmt: skip


def _proxy(run: Run) -> Component:
    command = [f"{BIN}/kube-proxy", f"--config={run.root}/proxy.yaml"]
    text = json.dumps(config.kube_proxy(run), indent=1)
    return Component("proxy", command, "http://127.0.0.1:10256/healthz", after=["apiserver"], configuration=text)


def _netpol(run: Run) -> Component:

    arguments = [f"--kubeconfig={run.root}/netpol.kubeconfig", f"--socket={run.root}/netpol.sock"]
    command = [sys.executable, "-m", "e2e.cluster.netpol", *arguments]
    return Component("netpol", command, health=f"unix:{run.root}/netpol.sock", after=["apiserver"])
