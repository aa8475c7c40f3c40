"""The real API server with our CRDs, a namespace a test, the operator as a real process, and a table of the faults."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.apiserver import ApiServer
from e2e.faults.api import Api
from e2e.faults.cluster import Hands, install_crds
from e2e.faults.operator_process import OperatorProcess, Record, Start, operator_process
from e2e.faults.proxy import FaultProxy, fault_proxy

_numbers = itertools.count(1)
_faults: list[dict[str, object]] = []


@pytest.fixture(scope="session")
def api(apiserver: ApiServer) -> Api:
    """The administrator's view of an API server that serves our CRDs and JobSet's."""
    client = Api(apiserver.kubeconfig)
    install_crds(client)
    return client


@pytest.fixture
def hands(api: Api) -> Hands:
    """A namespace of the test's own, with someone to play the other controllers in it. The operator lives in it too."""
    found = Hands(api, f"team-{next(_numbers)}")
    found.create_namespace()
    return found


@pytest.fixture
def proxy(apiserver: ApiServer, tmp_path: Path) -> Iterator[FaultProxy]:
    with fault_proxy(apiserver.kubeconfig, tmp_path) as running:
        yield running


@pytest.fixture
def start(hands: Hands, tmp_path: Path) -> Iterator[Start]:
    """Starts operators that serve the test's namespace; all are killed at the end."""
    with ExitStack() as stack:

        def start_one(
            proxy: FaultProxy, name: str = "operator-a", environment: dict[str, str] | None = None, **settings: str
        ) -> OperatorProcess:
            given = {"WATCH_NAMESPACES": hands.namespace, **settings}
            running = operator_process(
                proxy.kubeconfig,
                tmp_path,
                name=name,
                namespace=hands.namespace,
                settings=given,
                environment=environment or {},
            )
            return stack.enter_context(running)

        yield start_one


@pytest.fixture
def operator(start: Start, proxy: FaultProxy) -> OperatorProcess:
    """One operator that leads, behind the proxy."""
    running = start(proxy)
    running.wait_ready()
    running.wait_leads()
    return running


@pytest.fixture
def record() -> Record:
    """Adds a row to the table of faults that is printed at the end."""

    def add(fault: str, **counts: int) -> None:
        _faults.append({"fault": fault, **counts})

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _faults:
        return
    terminalreporter.section("operator faults: provoked on the real API server, end state right each time")
    for row in _faults:
        counts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items() if name != "fault")
        terminalreporter.write_line(f"{row['fault']:<52} {counts}")
    out = Path("out")
    out.mkdir(exist_ok=True)
    (out / "operator-faults.json").write_text(json.dumps(_faults, indent=1) + "\n")
