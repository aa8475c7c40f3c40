"""The embedded cluster: real Kubernetes as processes of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from e2e.cluster import (
    build,
    certificates,
    components,
    config,
    health,
    network,
    owner,
    preflight,
    processes,
    system_images,
    teardown,
)
from e2e.cluster.components import Component
from e2e.cluster.containerd import Containerd
from e2e.cluster.errors import ClusterError, PreflightError
from e2e.cluster.kubectl import Kubectl, wait_until
from e2e.cluster.paths import CHECKOUT, DEFAULT_RUN, Run
from e2e.cluster.system_images import SystemImage


@dataclass
class Embedded:
    """Brings one cluster up and down; `stages` are the seconds since the start at which each stage of `up` was done."""

    console: Console
    run: Run = DEFAULT_RUN
    stages: dict[str, float] = field(default_factory=dict)
    name: str = "embedded"
    #: Images get here by import only.
    pull_policy: str = "Never"

    @property
    def kubeconfig(self) -> Path:
        return self.run.kubeconfig

    def up(self) -> None:
        """From whatever state to a Ready node with DNS. Harmless when that is so; repairs what is broken.

        Raises:
            PreflightError: the machine lacks something; nothing was started.
            ClusterError: a stage was not reached; what runs is left for `logs`, and `up` or `down` go on from there.
        """
        with owner.operation():
            build.ensure(self.console)
            start = time.monotonic()
            self._start(start)
            self._finish(start)

    def down(self, *, purge: bool = False) -> None:
        """Harmless when it is down.

        Raises:
            ClusterError: it is another checkout's, or containers could not be removed (all else is down then).
        """
        if owner.read() is None and not self.run.root.exists():
            return
        with owner.operation():
            current = owner.read()
            owner.check(current, CHECKOUT, self.run)
            teardown.down(current.run if current else self.run, purge=purge)

    def _start(self, start: float) -> None:
        current = owner.read()
        owner.check(current, CHECKOUT, self.run)
        if current and not current.alive and current.run != self.run:
            self.console.print(f"cleaning up after a killed cluster ({current.run.root})")
            teardown.down(current.run)
        if not processes.marked(self.run):
            if current:
                # Addresses and mounts of a cluster whose processes are all gone would read as somebody else's.
                teardown.down(self.run)
            found = preflight.problems(self.run)
            if found:
                raise PreflightError(found)
        self._stage("preflight", start)
        owner.claim(CHECKOUT, self.run)
        self._configure()
        self._supervise()
        self._stage("network, certificates, configuration", start)

    def _configure(self) -> None:
        run = self.run
        for directory in (run.root, run.logs, run.containerd, run.cni, run.storage):
            directory.mkdir(parents=True, exist_ok=True)
        network.raise_network(run)
        certificates.create(run)
        texts = {c.name: c.configuration for c in components.all_components(run)}
        _write(run.containerd_config, texts["containerd"])
        _write(run.cni / "10-pinnace.conflist", json.dumps(config.conflist(run)))
        _write(run.root / "kubelet.yaml", texts["kubelet"])
        _write(run.root / "proxy.yaml", texts["proxy"])
        _write(run.root / "resolv.conf", "")

    def _supervise(self) -> None:
        """Start a supervisor, or leave the one that runs if its components are still the right ones."""
        wanted = components.all_components(self.run)
        text = components.dump(wanted)
        alive = [p.pid for p in processes.marked(self.run) if p.component == "supervisor"]
        before: list[Component] = []
        with suppress(OSError, ValueError, TypeError):
            before = components.load(self.run)
        if alive and before == wanted:
            return
        processes.end(alive, grace=2)
        running = processes.mains(self.run, {c.name: c.command for c in before})
        changed = {c.name for c in before} - {c.name for c in wanted if c in before}
        processes.end([p.pid for name, p in running.items() if name in changed], grace=5)
        self.run.components.write_text(text)
        with (self.run.logs / "supervisor.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "e2e.cluster.supervisor", str(self.run.root)],
                env=Component("supervisor", [], "").environment(self.run), cwd=CHECKOUT,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _finish(self, start: float) -> None:
        kubectl = Kubectl(self.run.kubeconfig)
        with ThreadPoolExecutor(1) as pool:
            imported = pool.submit(self._import_images, start)
            self._wait_healthy("apiserver", 90)
            self._stage("API server ready", start)
            coredns = system_images.coredns()
            kubectl.apply("netpol-rbac.yaml")
            kubectl.apply("coredns.yaml", coredns_image=coredns.reference, dns_ip=network.DNS_IP)
            wait_until("node registered", lambda: _error(kubectl, "get", "node", network.NODE), 60)
            kubectl("wait", "--for=condition=Ready", f"node/{network.NODE}", "--timeout=90s")
            self._stage("node Ready", start)
            imported.result()
        kubectl.rolled_out("kube-system", "deployment/coredns")
        self._stage("CoreDNS available", start)
        wait_until("DNS", _dns_problem, 60)
        self._stage("DNS answers", start)
        for component in components.load(self.run):
            self._wait_healthy(component.name, 60)

    def _import_images(self, start: float) -> None:
        self._wait_healthy("containerd", 60)
        for image in (system_images.pause(), system_images.coredns()):
            self.load_system_image(image)
        self._stage("system images imported", start)

    def load_system_image(self, image: SystemImage) -> None:
        Containerd(self.run).load(image.archive)

    def load_image(self, archive: Path) -> list[str]:
        return Containerd(self.run).load(archive)

    def _wait_healthy(self, name: str, timeout: float) -> None:
        url = next(c.health for c in components.load(self.run) if c.name == name)
        try:
            wait_until(name, lambda: health.problem(url, self.run), timeout)
        except ClusterError as error:
            raise ClusterError(f"{error}\n{self.logs(name)[-2000:]}\nSee `pinnace cluster logs {name}`.") from error

    def logs(self, component: str) -> str:
        """The log of one component.

        Raises:
            ClusterError: there is no such component.
        """
        file = self.run.logs / f"{component}.log"
        if not file.is_file():
            there = (
                ", ".join(sorted(path.stem for path in self.run.logs.glob("*.log"))) or "none: the cluster never ran"
            )
            raise ClusterError(f"no log of {component!r}; there are {there}")
        return file.read_text(errors="replace")

    def _stage(self, name: str, start: float) -> None:
        self.stages[name] = time.monotonic() - start
        self.console.print(f"[dim]{self.stages[name]:6.1f} s[/dim]  {name}", highlight=False)


def _write(file: Path, text: str) -> None:
    """Only what changed: kube-proxy ends when its file is written, whatever is written."""
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


def _error(kubectl: Kubectl, *arguments: str) -> str | None:
    try:
        kubectl(*arguments)
    except ClusterError as error:
        return str(error)
    return None


def _dns_problem() -> str | None:
    name = "kubernetes.default.svc.cluster.local"
    done = subprocess.run(["busybox", "nslookup", name, network.DNS_IP], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"{name} is not resolved by {network.DNS_IP}: {done.stdout.strip()}"
