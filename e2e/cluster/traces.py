"""What a cluster could leave behind on the machine: taken before and after, the difference must be empty."""

from __future__ import annotations

import subprocess
from pathlib import Path

from e2e.cluster import cgroups, network
from e2e.cluster.paths import RUN_MARK

Traces = dict[str, frozenset[str]]
PLACES = (
    "/run",
    "/var/lib",
    "/var/log",
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/run/containerd",
    "/run/netns",
    "/etc/cni",
    "/opt/cni",
)


def take() -> Traces:
    """Interfaces, addresses, routes, nft rules, mounts, control groups, kernel settings, files and marked processes."""
    return {
        "links": _lines("ip", "-o", "-br", "link", "show"),
        "addresses": _lines("ip", "-o", "-br", "address", "show"),
        "routes": _lines("ip", "-4", "route", "show", "table", "all"),
        "routes v6": _lines("ip", "-6", "route", "show", "table", "all"),
        "rules": _lines("nft", "list", "tables"),
        "namespaces": _lines("ip", "netns", "list"),
        "mounts": frozenset(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()),
        "control groups": frozenset(str(path) for path in cgroups.pod_roots()),
        "settings": frozenset(_settings()),
        "files": frozenset(str(path) for place in PLACES if Path(place).is_dir() for path in Path(place).iterdir()),
        "processes": frozenset(_processes()),
    }


def left(before: Traces, after: Traces) -> dict[str, list[str]]:
    """What is there now and was not, and what was there and is gone, by kind."""
    kinds = {kind: sorted(before[kind] ^ after[kind]) for kind in before}
    return {kind: found for kind, found in kinds.items() if found}


def _lines(*command: str) -> frozenset[str]:
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return frozenset(line.strip() for line in output.splitlines())


def _settings() -> list[str]:
    names = [
        *network.SYSCTLS,
        "vm.overcommit_memory",
        "kernel.panic",
        "kernel.panic_on_oops",
        "net.netfilter.nf_conntrack_max",
    ]
    files = [Path("/proc/sys", *name.split(".")) for name in names]
    return [f"{file}={file.read_text().strip()}" for file in files if file.exists()]


def _processes() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{RUN_MARK}=".encode() in (entry / "environ").read_bytes():
                    found.append(f"{entry.name} {(entry / 'cmdline').read_bytes()[:200]!r}")
            except OSError:  # it ended while we looked
                continue
    return found
