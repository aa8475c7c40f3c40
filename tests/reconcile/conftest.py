"""Every plan that a test looks at is checked for what must always hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pinnace_operator.reconcile.plan import Plan

from e2e.simulation.decide import decide


@pytest.fixture(name="decide")
def _decide() -> Callable[..., Plan]:
    return decide
