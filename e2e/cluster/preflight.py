"""What the machine must have, checked before anything is started; every failure is one line with its remedy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from e2e.cluster import cgroups, network
from e2e.cluster.paths import CACHE, Run

DISK_GIB = 10.0
MEMORY_GIB = 3.0
#: Who listens where; the node's own address is not there before `up`, so a listener on all addresses is the only clash.
LOOPBACK_PORTS = {
    2379: "etcd", 2380: "etcd", 2381: "etcd", 10257: "kube-controller-manager", 10259: "kube-scheduler",
    10256: "kube-proxy", 10249: "kube-proxy", 10248: "kubelet",
}  # fmt: skip
NODE_PORTS = {6443: "kube-apiserver", 10250: "kubelet"}
#: A Unix socket's path may have 108 bytes, and kubelet makes some below the run directory.
SOCKET_PATH_LIMIT = 104
#: Loaded and removed in one transaction.
PROBE = """add table inet pinnace_probe
add chain inet pinnace_probe c { type nat hook output priority 0; }
add rule inet pinnace_probe c ip daddr 198.18.0.9 tcp dport 9 dnat ip to 198.18.0.8:8
delete table inet pinnace_probe
"""


def problems(run: Run) -> list[str]:
    """All that is wrong, each in one line with its remedy; or nothing."""
    found = [*_disk(), *_memory(), *_ports(), *_addresses(), *socket_path(run)]
    if os.geteuid() != 0:  # the other checks would fail for that reason only
        return ["not root: the cluster makes network namespaces and mounts; run it with sudo", *found]
    return [*_programs(), *_kernel(), *_groups(), *found]


def socket_path(run: Run) -> list[str]:
    longest = len(str(run.socket)) + len(".ttrpc")
    if longest <= SOCKET_PATH_LIMIT:
        return []
    remedy = "set a shorter PINNACE_CACHE"
    return [f"{run.root} is too deep: socket paths would have {longest} bytes of {SOCKET_PATH_LIMIT}; {remedy}"]


def _programs() -> list[str]:
    return [f"{name} is missing: run `make cluster-build`" for name in ("nft", "ip", "runc") if not shutil.which(name)]


def _kernel() -> list[str]:
    found = [
        f"the kernel has no {namespace} namespaces: use one that runs containers"
        for namespace in ("net", "pid", "mnt", "ipc", "uts")
        if not Path("/proc/self/ns", namespace).exists()
    ]
    if "overlay" not in Path("/proc/filesystems").read_text().split() and not _succeeds("modprobe", "overlay"):
        found.append("the kernel has no overlay file system: load it (modprobe overlay) or use a kernel that has it")
    if shutil.which("nft") and not _succeeds("nft", "-f", "-", stdin=PROBE):
        found.append(
            "nftables with NAT does not work (kube-proxy needs it): load nf_tables and nft_nat, or another kernel"
        )
    if shutil.which("ip"):
        made = _succeeds("ip", "link", "add", "pinnace-probe", "type", "veth", "peer", "name", "pinnace-probe2")
        _succeeds("ip", "link", "delete", "pinnace-probe")
        if not made:
            found.append("no virtual Ethernet pair can be made: load veth (modprobe veth), or grant CAP_NET_ADMIN")
    return found


def _groups() -> list[str]:
    return group_problems(cgroups.ROOT)


def group_problems(root: Path) -> list[str]:
    missing = cgroups.missing_controllers(root)
    version = "v2" if cgroups.is_v2(root) else "v1"
    remedy = "mount or enable them (boot parameter cgroup_enable=…)"
    return [f"cgroup {version} controllers missing at {root}: {', '.join(missing)}; {remedy}"] if missing else []


def _disk() -> list[str]:
    return disk_problems(shutil.disk_usage(CACHE).free / 2**30)


def disk_problems(free_gib: float) -> list[str]:
    if free_gib >= DISK_GIB:
        return []
    remedy = "free some, or set PINNACE_CACHE to a larger disk"
    return [f"{CACHE} has {free_gib:.1f} GiB free and the cluster wants {DISK_GIB:.0f}: {remedy}"]


def _memory() -> list[str]:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return memory_problems(int(fields["MemAvailable"].split()[0]) / 2**20)


def memory_problems(free_gib: float) -> list[str]:
    if free_gib >= MEMORY_GIB:
        return []
    return [f"{free_gib:.1f} GiB of memory are available and the cluster wants {MEMORY_GIB:.0f}: end something"]


def _ports() -> list[str]:
    taken = listening_ports(Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text())
    return port_problems(taken)


def listening_ports(table: str) -> set[tuple[int, str]]:
    """Ports in state LISTEN in the text of /proc/net/tcp, each with `any`, `loopback` or `other` address."""
    found = set()
    for fields in (line.split() for line in table.splitlines()):
        if len(fields) > 3 and fields[3] == "0A":
            address, port = fields[1].split(":")
            kind = (
                "any"
                if set(address) == {"0"}
                else "loopback"
                if address.endswith("7F") or address == "0100007F"
                else "other"
            )
            found.add((int(port, 16), kind))
    return found


def port_problems(taken: set[tuple[int, str]]) -> list[str]:
    found = []
    for port, name in sorted({**LOOPBACK_PORTS, **NODE_PORTS}.items()):
        kinds = {"any", "loopback"} if port in LOOPBACK_PORTS else {"any"}
        if any((port, kind) in taken for kind in kinds):
            found.append(
                f"port {port} ({name}) is in use: end what listens there (`ss -ltnp 'sport = :{port}'` names it)"
            )
    return found


def _addresses() -> list[str]:
    if not shutil.which("ip"):
        return []
    addresses, routes = (
        subprocess.run(["ip", "-4", "-o", kind, "show"], capture_output=True, text=True, check=False).stdout
        for kind in ("address", "route")
    )
    return address_problems(addresses + routes)


def address_problems(listing: str) -> list[str]:
    """`listing`: what `ip -4 -o address show` and `ip route show` print."""
    taken = [line.strip() for line in listing.splitlines() if re.search(r"(?<![\d.])198\.1[89]\.", line)]
    return [f"{network.CLUSTER_RANGE} is in use here ({line}): remove that address or route" for line in taken]


def _succeeds(*command: str, stdin: str | None = None) -> bool:
    if not shutil.which(command[0]):
        return False
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False).returncode == 0
