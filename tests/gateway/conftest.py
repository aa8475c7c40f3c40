"""A laboratory for each test, and one gateway with one tool server that tests share which change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.gateway import sandboxes
from e2e.gateway.lab import Backend, Gateway, Lab, lab, server
from e2e.gateway.sandboxes import Sandboxes, configuration, ready


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Lab]:
    """Processes of this test's own."""
    with lab(tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest.fixture(scope="session")
def backend(shared: Lab) -> Backend:
    """A tool server that stays healthy."""
    return shared.backend("plain")


@pytest.fixture(scope="session")
def gateway(shared: Lab, backend: Backend) -> Gateway:
    """A gateway before `backend`."""
    return shared.gateway({"servers": [server("plain", backend)]})


@pytest.fixture(scope="session")
def warm_pool(shared: Lab) -> Sandboxes:
    """Real sandboxes that tests take in turn."""
    return sandboxes.start(shared, 4)


@pytest.fixture(scope="session")
def leasing(shared: Lab, warm_pool: Sandboxes) -> Gateway:
    """A gateway before the warm pool."""
    return ready(shared.gateway(configuration(warm_pool)), 4)


@pytest.fixture(scope="session")
def replica(shared: Lab, warm_pool: Sandboxes) -> Gateway:
    """Another gateway of the same ToolSandbox as `leasing`."""
    return ready(shared.gateway(configuration(warm_pool)), 4)


@pytest.fixture
def pool(warm_pool: Sandboxes) -> Iterator[Sandboxes]:
    """The sandboxes, all free; nobody else has one meanwhile."""
    yield warm_pool
    warm_pool.free()
