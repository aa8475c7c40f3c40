"""Pods of real containers, a service that nobody may reach, and the table of attacks that is printed at the end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.sandbox.canary import Canary, canary
from e2e.sandbox.pod import Pod, pod

_attacks: list[dict[str, str]] = []

Record = Callable[[str, str, str], None]


@pytest.fixture(scope="session")
def containers_work() -> None:
    """Two uids and own namespaces are what is tested, and only root can make them."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the tests make containers with two uids and namespaces of their own")
    if missing := [name for name in ("unshare", "nsenter", "setpriv", "ip") if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)} (util-linux, iproute2)")


@pytest.fixture(scope="session")
def victim(containers_work: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """Where attacks run: no network."""
    with pod(tmp_path_factory.mktemp("victim") / "pod", executor=["--grace", "0.3"]) as running:
        running.wait("free")
        yield running


@pytest.fixture(scope="session")
def neighbour(containers_work: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """Has a lease of its own all the time, with sockets allowed."""
    with pod(tmp_path_factory.mktemp("neighbour") / "pod", executor=["--network"]) as running:
        running.wait("free")
        yield running


@pytest.fixture(scope="session")
def services(victim: Pod, neighbour: Pod) -> Iterator[dict[str, Canary]]:
    """In each pod's namespace, something that owns the metadata and API addresses, and a port of the node."""
    with canary(victim) as first, canary(neighbour) as second:
        yield {victim.name: first, neighbour.name: second}


@pytest.fixture(scope="session")
def record() -> Record:
    """Adds a row to the table of attacks."""
    return lambda attempt, outcome, happened: _attacks.append(
        {"attempt": attempt, "outcome": outcome, "happened": happened}
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _attacks:
        return
    terminalreporter.section(
        f"{len(_attacks)} attacks on a session's sandbox: each stopped, each typed, the neighbour unharmed"
    )
    for row in _attacks:
        happened = " ".join(row["happened"].split())
        terminalreporter.write_line(f"{row['attempt']:<44} {row['outcome']:<18} {happened[:110]}")
    out = Path("out")
    out.mkdir(exist_ok=True)
    (out / "attacks.json").write_text(json.dumps(_attacks, indent=1) + "\n")
