"""A real kube-apiserver with etcd on loopback: what tests need when no pod has to run."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster import pki

CACHE = Path(os.environ.get("PINNACE_CACHE", Path.home() / ".cache" / "pinnace"))
BIN = CACHE / "bin"


def free_port() -> int:
    """A TCP port that was free on loopback a moment ago."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ones."""
    with ExitStack() as open_until_all_are_known:
        probes = [open_until_all_are_known.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@dataclass
class ApiServer:
    """etcd and kube-apiserver as child processes; `kubeconfig` belongs to a cluster administrator."""

    directory: Path
    port: int = field(default_factory=free_port)
    etcd_port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    def start(self) -> None:
        """Start both and return when `/readyz` answers ok.

        Raises:
            RuntimeError: a program is missing, ended, or was not ready within 90 s; the message ends with its log.
        """
        certs = self.directory / "pki"
        certs.mkdir(parents=True, exist_ok=True)
        self.ca = pki.Authority.create(certs, "ca", "test-ca")
        self.ca.issue("apiserver", "kube-apiserver", server=True, alt_names=["127.0.0.1", "localhost"])
        pki.signing_key(certs, "sa")
        self.user_kubeconfig("admin", groups="system:masters", path=self.kubeconfig)
        self.start_etcd()
        self.start_apiserver()

    def user_kubeconfig(self, user: str, *, groups: str | None = None, path: Path | None = None) -> Path:
        """A kubeconfig for `user` (its rights come from RBAC), so that tests can be someone with few of them."""
        path = path or self.directory / f"{user.replace(':', '-')}.kubeconfig"
        certificate, key = self.ca.issue(f"client-{path.stem}", user, organisation=groups, client=True)
        pki.kubeconfig(path, self.url, self.ca.pem, certificate, key)
        return path

    def start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.peer_port}"
        self._spawn(
            "etcd", f"--data-dir={self.directory / 'etcd'}", "--unsafe-no-fsync",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
        )  # fmt: skip

    def start_apiserver(self) -> None:
        certs = self.directory / "pki"
        self._spawn(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
            f"--secure-port={self.port}", f"--tls-cert-file={certs}/apiserver.crt",
            f"--tls-private-key-file={certs}/apiserver.key", f"--client-ca-file={certs}/ca.crt",
            "--authorization-mode=RBAC", "--service-cluster-ip-range=198.19.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={certs}/sa.pub", f"--service-account-signing-key-file={certs}/sa.key",
            "--disable-admission-plugins=ServiceAccount", "--profiling=false", "--shutdown-delay-duration=0s",
        )  # fmt: skip
        self.wait_ready()

    def wait_ready(self, timeout: float = 90) -> None:
        context = ssl.create_default_context(cadata=self.ca.pem.decode())
        context.load_cert_chain(
            self.directory / "pki/client-kubeconfig.crt", self.directory / "pki/client-kubeconfig.key"
        )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}:\n{self._log(name)}")
            try:
                urllib.request.urlopen(f"{self.url}/readyz", context=context, timeout=2).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise RuntimeError(f"kube-apiserver was not ready within {timeout:.0f} s:\n{self._log('kube-apiserver')}")

    def stop(self, name: str | None = None, sig: int = signal.SIGKILL) -> None:
        """Stop one program or, apiserver first, both. The state is throwaway, so SIGKILL is the default."""
        for each in [name] if name else ["kube-apiserver", "etcd"]:
            process = self.processes.pop(each, None)
            if process:
                process.send_signal(sig)
                process.wait()

    def _spawn(self, name: str, *arguments: str) -> None:
        program = BIN / name
        if not program.exists():
            raise RuntimeError(f"{program} is missing: run `make cluster-build` first")
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [program, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def _log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")[-3000:]


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """A running `ApiServer` in a directory of its own, stopped and deleted at the end."""
    directory = Path(tempfile.mkdtemp(prefix="pinnace-apiserver-"))
    server = ApiServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
