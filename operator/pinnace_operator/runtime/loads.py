"""The newest report of load of each gateway, and whether it is worth a look at once."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from pinnace_operator.api.load import LoadReport, ServerLoad
from pinnace_operator.reconcile.plan import Load

_FORGET_SECONDS = 300


class LatestLoads:
    """By UID of the ToolSandbox and name of the gateway's pod."""

    def __init__(self) -> None:
        self._latest: dict[str, dict[str, Load]] = {}

    def put(self, report: LoadReport) -> bool:
        """Keep `report`; True when it says something that must not wait, not just other numbers of calls."""
        received = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        gateways = self._latest.setdefault(report.uid, {})
        known = gateways.get(report.pod)
        oldest = received - datetime.timedelta(seconds=_FORGET_SECONDS)
        for pod in [pod for pod, each in gateways.items() if each.received < oldest]:
            del gateways[pod]
        gateways[report.pod] = Load(report=report, received=received)
        return known is None or _news(known.report) != _news(report)

    def get(self, uid: str) -> tuple[Load, ...]:
        """All gateways' latest, in the order of their names."""
        return tuple(each for _, each in sorted(self._latest.get(uid, {}).items()))

    def uids(self) -> set[str]:
        return set(self._latest)

    def forget(self, uids: Iterable[str]) -> int:
        """Drop the reports about resources that are gone; how many resources there were."""
        return sum(self._latest.pop(uid, None) is not None for uid in uids)


def _news(report: LoadReport) -> object:
    """All that is looked at without delay: a call that waits for a server without pods above all."""
    return (
        report.generation,
        report.tools,
        tuple(each.name for each in report.unhealthy_tools),
        report.sessions,
        tuple((each.name, each.version, each.state, each.ready, each.tools, _held(each)) for each in report.servers),
    )


def _held(load: ServerLoad) -> bool:
    return load.ready == 0 and load.queued > 0
