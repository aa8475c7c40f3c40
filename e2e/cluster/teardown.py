"""Stop a cluster and remove every trace, whatever part of it is dead already."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from e2e.cluster import cgroups, components, network, processes
from e2e.cluster.components import Component
from e2e.cluster.containerd import Containerd
from e2e.cluster.errors import ClusterError
from e2e.cluster.kubectl import wait_until
from e2e.cluster.paths import CONTAINERD_ROOT, OWNER_FILE, Run

#: libcni's record of what it gave which container.
CNI_RESULTS = Path("/var/lib/cni/results")
#: Where shims listen; the place is fixed in containerd.
SHIM_SOCKETS = Path("/run/containerd/s")


def down(run: Run, *, purge: bool = False) -> None:
    """Stop all of `run` and undo what it changed on the machine. State (etcd, S3, certificates) stays unless `purge`.

    Raises:
        ClusterError: containerd did not let go of the containers; everything else is down all the same.
    """
    commands = {c.name: c.command for c in components.all_components(run)}
    everything = processes.marked(run)
    processes.end([p.pid for p in everything if p.component == "supervisor"], grace=2)
    stop = [p.pid for p in everything if p.component in {"netpol", "kubelet", "proxy", "scheduler", "kcm"}]
    processes.end(stop, grace=1)
    cgroups.kill_pods()
    trouble = _remove_containers(run, commands["containerd"])
    # What is left: apiserver and etcd (a graceful stop of an apiserver with open watches takes 15 s), shims, strays.
    processes.end([p.pid for p in processes.marked(run)], grace=0)
    _unmount(run)
    network.lower_network(run)
    cgroups.remove_pods()
    _remove_files(run)
    if purge:
        shutil.rmtree(run.root, ignore_errors=True)
    OWNER_FILE.unlink(missing_ok=True)
    if trouble:
        raise trouble


def _remove_containers(run: Run, command: list[str]) -> ClusterError | None:
    """With a containerd that we start for it if the cluster's is dead: only it can clean its own records."""
    if not run.containerd_config.exists() or not CONTAINERD_ROOT.exists():
        return None
    component = Component("containerd", command, f"unix:{run.socket}")
    started: list[subprocess.Popen[bytes]] = []

    def problem() -> str | None:
        # Looked at each time: one that was killed a moment ago still shows, and its socket still takes connections.
        ours = any(process.poll() is None for process in started)
        if not ours and "containerd" not in processes.mains(run, {"containerd": command}):
            started.append(component.start(run))
        try:
            Containerd(run).ctr("version")
        except ClusterError as error:
            return str(error)
        return None

    trouble = None
    try:
        wait_until("containerd", problem, timeout=30)
        Containerd(run).remove_containers()
    except ClusterError as error:
        # The rest has to go all the same; kubelet removes containers that it does not know at the next `up`.
        trouble = ClusterError(f"containers are left in {CONTAINERD_ROOT}, all else is down: {error}")
    main = processes.mains(run, {"containerd": command}).get("containerd")
    processes.end([main.pid] if main else [], grace=3)
    return trouble


def _unmount(run: Run) -> None:
    places = (f"{run.root}/", f"{CONTAINERD_ROOT}/")
    deadline = time.monotonic() + 5
    while mounts := [m for m in _mounts() if f"{m}/".startswith(places)]:
        if time.monotonic() > deadline:
            break
        # Detached and the inner ones first: a mount below another keeps that one busy.
        subprocess.run(["umount", "--lazy", *sorted(mounts, reverse=True)], capture_output=True, check=False)


def _mounts() -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1].encode().decode("unicode_escape") for line in lines]


def _remove_files(run: Run) -> None:
    for path in (
        run.containerd / "state",
        run.kubelet,
        run.root / "podlogs",
        run.root / "cni-ipam",
        run.state,
        run.components,
    ):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for path in run.root.glob("**/*.sock*"):
        path.unlink(missing_ok=True)
    for result in CNI_RESULTS.glob("pinnace-*"):
        result.unlink(missing_ok=True)
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{run.root}/"):
            link.unlink()
    _remove_dead_sockets()
    for directory in ("device-plugins", "pki"):
        shutil.rmtree(Path("/var/lib/kubelet", directory), ignore_errors=True)
    logs = ("/var/log/containers", "/var/log/pods")
    shims = (SHIM_SOCKETS, SHIM_SOCKETS.parent / "fifo", SHIM_SOCKETS.parent)
    for empty in (CNI_RESULTS, CNI_RESULTS.parent, *logs, "/var/lib/kubelet", *shims):
        with suppress(OSError):
            Path(empty).rmdir()


def _remove_dead_sockets() -> None:
    """Sockets of shims that nobody listens on: another containerd on this machine keeps its own there."""
    listening = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    for socket in SHIM_SOCKETS.glob("*"):
        if str(socket) not in listening:
            socket.unlink(missing_ok=True)
