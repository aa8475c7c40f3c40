"""Addresses of the cluster and the guard around them: nothing of 198.18.0.0/15 (RFC 2544) ever leaves the machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster.paths import Run

NODE = "node1"
NODE_IP = "198.18.0.1"
CLUSTER_RANGE = "198.18.0.0/15"
POD_RANGE = "198.18.0.0/16"
NODE_POD_RANGE = "198.18.0.0/24"
SERVICE_RANGE = "198.19.0.0/16"
SERVICE_FIRST = "198.19.0.1"
DNS_IP = "198.19.0.10"
S3_IP = "198.19.0.20"

#: inotify: every pod with a file watch takes instances, and 128 are few.
SYSCTLS = {"net.ipv4.ip_forward": "1", "fs.inotify.max_user_instances": "1024"}
#: Tables of ours, of kube-proxy and of the portmap plugin.
TABLES = ("inet pinnace_guard", "inet pinnace_netpol", "ip kube-proxy", "ip6 kube-proxy", "inet cni_hostport")


def guard(uplinks: Sequence[str]) -> str:
    """The nft table that parts the cluster from `uplinks` (interfaces of default routes), both ways."""
    elements = f" elements = {{ {', '.join(sorted(uplinks))} }};" if uplinks else ""
    return f"""table inet pinnace_guard
delete table inet pinnace_guard
table inet pinnace_guard {{
 set uplinks {{ type ifname;{elements} }}
 chain guard_forward {{
  type filter hook forward priority -10; policy accept;
  oifname @uplinks ip saddr {CLUSTER_RANGE} reject with icmp type admin-prohibited
  iifname @uplinks drop
 }}
 chain guard_input {{
  type filter hook input priority -10; policy accept;
  iifname @uplinks ip daddr {CLUSTER_RANGE} drop
 }}
 chain guard_output {{
  type filter hook output priority 10; policy accept;
  oifname @uplinks ip daddr {CLUSTER_RANGE} drop
 }}
}}
"""


def uplinks() -> list[str]:
    routes = json.loads(_run("ip", "-j", "route", "show", "default") or "[]")
    routes += json.loads(_run("ip", "-j", "-6", "route", "show", "default") or "[]")
    return sorted({route["dev"] for route in routes if "dev" in route})


def raise_network(run: Run) -> None:
    """Lay addresses, routes and the guard. Harmless when they are there."""
    # First of all: until a pod's own /32 route exists its address is unreachable, never a matter of the default route.
    _run("ip", "route", "replace", "unreachable", CLUSTER_RANGE)
    load(guard(uplinks()))
    # The kernel may lack dummy devices; an address on lo serves, and kubelet refuses only 127/8.
    _run("ip", "address", "replace", f"{NODE_IP}/32", "dev", "lo")
    # Without it connect() to a service address fails in the route lookup, before the nat hook can rewrite it.
    _run("ip", "route", "replace", SERVICE_RANGE, "dev", "lo", "src", NODE_IP)
    if not run.sysctls.exists():
        run.sysctls.write_text(json.dumps({name: _sysctl(name).read_text().strip() for name in SYSCTLS}))
    for name, value in SYSCTLS.items():
        _sysctl(name).write_text(value)


def lower_network(run: Run) -> None:
    """Remove what `raise_network`, kube-proxy and CNI left, and put the kernel settings back. The guard goes last."""
    for link in json.loads(_run("ip", "-j", "address", "show", "type", "veth", check=False) or "[]"):
        if any(address.get("local") == NODE_IP for address in link.get("addr_info", [])):
            _run("ip", "link", "delete", link["ifname"], check=False)
    if run.sysctls.exists():
        for name, value in json.loads(run.sysctls.read_text()).items():
            _sysctl(name).write_text(value)
        run.sysctls.unlink()
    for arguments in (
        ("route", "delete", SERVICE_RANGE, "dev", "lo"),
        ("address", "delete", f"{NODE_IP}/32", "dev", "lo"),
        ("route", "delete", "unreachable", CLUSTER_RANGE),
    ):
        _run("ip", *arguments, check=False)
    for table in reversed(TABLES):
        _run("nft", "delete", "table", *table.split(), check=False)


def load(ruleset: str) -> None:
    """Load an nft ruleset in one transaction.

    Raises:
        subprocess.CalledProcessError: nft refused it; nothing changed.
    """
    subprocess.run(["nft", "-f", "-"], input=ruleset, text=True, check=True, capture_output=True)


def _sysctl(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


def _run(*command: str, check: bool = True) -> str:
    if not check and not shutil.which(command[0]):
        return ""
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout
