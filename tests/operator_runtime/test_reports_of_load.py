"""Which reports of load are looked at at once, and which may wait a few seconds."""

from __future__ import annotations

from typing import Any

import pytest
from pinnace_operator.api.load import LoadReport
from pinnace_operator.runtime.loads import LatestLoads
from pydantic import ValidationError

QUIET = {"name": "time", "version": "v1", "ready": 1, "inFlight": 3, "state": "ready", "tools": 2}


def report(*servers: dict[str, Any], **fields: Any) -> LoadReport:
    who = {"namespace": "team", "name": "tools", "uid": "u", "pod": "g0", "generation": 1, "tools": 2}
    return LoadReport.from_manifest({**who, "servers": list(servers or [QUIET]), **fields})


@pytest.fixture
def loads() -> LatestLoads:
    found = LatestLoads()
    assert found.put(report()), "the first one is news"
    return found


@pytest.mark.parametrize(
    ("what", "changed", "news"),
    [
        ("nothing", report(), False),
        ("more calls", report({**QUIET, "inFlight": 900, "queued": 70}), False),
        ("a call waits at zero", report({**QUIET, "ready": 0, "queued": 1, "state": "absent"}), True),
        ("a server fails", report({**QUIET, "state": "failing"}), True),
        ("its tools are known", report({**QUIET, "tools": 3}), True),
        ("the configuration is in force", report(generation=2), True),
        ("a tool is unhealthy", report(unhealthyTools=[{"name": "now", "outcome": "timeout"}]), True),
        ("a lease begins", report(sessions={"free": 1, "armed": 1, "max": 4}), True),
        ("another gateway", report(pod="g1"), True),
    ],
)
def test_news(loads: LatestLoads, what: str, changed: LoadReport, news: bool) -> None:
    assert loads.put(changed) is news


def test_every_gateways_latest_is_kept_and_forgotten_with_its_toolsandbox(loads: LatestLoads) -> None:
    loads.put(report(pod="g1"))
    loads.put(report(generation=5))
    assert [(each.report.pod, each.report.generation) for each in loads.get("u")] == [("g0", 5), ("g1", 1)]
    assert (loads.forget({"other"}), loads.forget({"u"}), loads.get("u")) == (0, 1, ())


@pytest.mark.parametrize(
    "broken",
    [
        {"servers": [{**QUIET, "state": "odd"}]},
        {"servers": [{**QUIET, "inFlight": -1}]},
        {"kind": "SFTJob"},
        {"extra": 1},
    ],
)
def test_what_is_no_report_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        report(**broken) if "servers" not in broken else report(*broken["servers"])
