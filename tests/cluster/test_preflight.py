"""Every lack of the machine is one line that names the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster import owner, preflight
from e2e.cluster.errors import ClusterError, PreflightError
from e2e.cluster.paths import Run

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def line(address: str, port: int, state: str = "0A") -> str:
    return f"   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 1 1\n"


@pytest.mark.parametrize(
    ("address", "port", "state", "clashes"),
    [
        ("0100007F", 2379, "0A", True),
        ("00000000", 2379, "0A", True),
        ("00000000000000000000000000000000", 6443, "0A", True),
        ("0100007F", 2379, "01", False),
        ("020000C0", 2379, "0A", False),
        ("0100007F", 6443, "0A", False),  # the API server listens on the node's own address only
        ("0100007F", 8080, "0A", False),
    ],
)
def test_a_port_in_use_is_found(address: str, port: int, state: str, clashes: bool) -> None:
    found = preflight.port_problems(preflight.listening_ports(HEADER + line(address, port, state)))
    assert bool(found) is clashes
    assert all(str(port) in each and "end what listens" in each for each in found)


@pytest.mark.parametrize(
    ("listing", "clashes"),
    [
        ("2: eth0    inet 192.0.2.2/24 scope global eth0", False),
        ("2: eth0    inet 198.18.3.2/24 scope global eth0", True),
        ("198.19.0.0/16 dev tun0", True),
        ("198.51.100.0/24 dev eth0", False),
        ("10.198.18.0/24 dev eth0", False),
    ],
)
def test_an_address_of_ours_in_use_is_found(listing: str, clashes: bool) -> None:
    assert bool(preflight.address_problems(listing)) is clashes


def test_little_disk_and_memory_are_named_with_what_is_wanted() -> None:
    assert "2.5 GiB free" in preflight.disk_problems(2.5)[0]
    assert "0.5 GiB of memory" in preflight.memory_problems(0.5)[0]
    assert preflight.disk_problems(50) == preflight.memory_problems(16) == []


@pytest.mark.parametrize(
    ("controllers", "missing"), [("cpu cpuset io memory pids", []), ("cpu io", ["cpuset", "memory", "pids"])]
)
def test_controllers_of_version_2_are_checked(tmp_path: Path, controllers: str, missing: list[str]) -> None:
    (tmp_path / "cgroup.controllers").write_text(controllers)
    found = preflight.group_problems(tmp_path)
    assert all(name in found[0] for name in missing) if missing else found == []


def test_controllers_of_version_1_are_checked(tmp_path: Path) -> None:
    for name in ("cpu", "cpuacct", "cpuset", "devices", "freezer", "pids"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    assert preflight.group_problems(tmp_path)[0].startswith("cgroup v1 controllers missing")
    assert "memory" in preflight.group_problems(tmp_path)[0]


def test_a_path_too_long_for_sockets_is_refused() -> None:
    assert preflight.socket_path(Run(Path("/" + "x" * 90)))
    assert preflight.socket_path(Run(Path("/var/cache/pinnace"))) == []


def test_all_problems_are_told_at_once() -> None:
    assert str(PreflightError(["one: do this", "two: do that"])).splitlines()[1:] == [
        "  - one: do this",
        "  - two: do that",
    ]


def test_a_cluster_of_another_checkout_is_left_alone(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    other = owner.Owner(Path("/somewhere/else"), run, alive=True)
    with pytest.raises(ClusterError, match="cd /somewhere/else && pinnace cluster down"):
        owner.check(other, tmp_path, run)
    owner.check(owner.Owner(Path("/somewhere/else"), run, alive=False), tmp_path, run)
    owner.check(owner.Owner(tmp_path, run, alive=True), tmp_path, run)


def test_two_commands_at_once_are_refused(tmp_path: Path) -> None:
    with (
        owner.operation(tmp_path / "lock"),
        pytest.raises(ClusterError, match="wait until it is done"),
        owner.operation(tmp_path / "lock"),
    ):
        raise AssertionError("both hold the lock")
    assert not (tmp_path / "lock").exists()
    with owner.operation(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()
