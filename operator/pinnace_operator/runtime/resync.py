"""The resync: lists everything in pages, enqueues all of it and removes ghosts, because events alone are not enough.

Kopf tells nothing about objects that vanished while a watch was broken (410), and an operator that was down heard
nothing at all.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from pinnace_operator.runtime import kube_errors
from pinnace_operator.runtime.kinds import ORPHANED
from pinnace_operator.runtime.kube import Kube, Object, Resource
from pinnace_operator.runtime.loads import LatestLoads
from pinnace_operator.runtime.metrics import Metrics
from pinnace_operator.runtime.owners import LABELS, UID_LABEL, owner_key
from pinnace_operator.runtime.progress import LatestReports
from pinnace_operator.runtime.queue import Key, WorkQueue

log = logging.getLogger(__name__)


class Resync:
    """One pass over the cluster.

    Args:
        kinds: our custom resources by kind.
        namespaces: what this operator serves; (None,) for all.
        forget_all_but: told the UIDs that live, for what else is remembered by UID.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        kinds: Mapping[str, Resource],
        namespaces: Sequence[str | None],
        queue: WorkQueue,
        reports: LatestReports,
        loads: LatestLoads,
        metrics: Metrics,
        forget_all_but: Callable[[set[str]], None],
    ) -> None:
        self._kube = kube
        self._kinds = kinds
        self._namespaces = namespaces
        self._queue = queue
        self._reports = reports
        self._loads = loads
        self._metrics = metrics
        self._forget_all_but = forget_all_but

    async def once(self) -> int:
        """List, enqueue, prune; how many resources there are.

        Raises:
            KubeError: the API server failed; nothing was pruned by half-read lists.
        """
        known_reports, known_loads = self._reports.uids(), self._loads.uids()
        uids: set[str] = set()
        servers: Counter[str] = Counter()
        for kind, resource in self._kinds.items():
            conditions: Counter[str] = Counter()
            for namespace in self._namespaces:
                async for found in self._kube.list(resource, namespace):
                    meta = found["metadata"]
                    uids.add(meta["uid"])
                    conditions.update(_true_conditions(found))
                    servers.update(each["state"] for each in (found.get("status") or {}).get("servers") or [])
                    self._queue.add(Key(kind, meta["namespace"], meta["name"]))
            self._metrics.set_conditions(kind, conditions)
        self._metrics.set_tool_servers(servers)
        # Keys whose resource is gone: a worker finds that out and forgets them, delays and failures included.
        for key in self._queue.known():
            self._queue.add(key)
        self._count("report", self._reports.forget(known_reports - uids))
        self._count("load", self._loads.forget(known_loads - uids))
        self._forget_all_but(uids)
        for namespace in self._namespaces:
            for resource in ORPHANED:
                await self._prune_children(resource, namespace, uids)
        return len(uids)

    async def _prune_children(self, resource: Resource, namespace: str | None, uids: set[str]) -> None:
        async for child in self._kube.list(resource, namespace, labels=LABELS):
            meta = child["metadata"]
            uid = meta["labels"].get(UID_LABEL, "")
            if not uid or uid in uids or meta.get("deletionTimestamp"):
                continue
            # The lists are of different moments, so the owner is asked for by name before anything is deleted.
            key = owner_key(child, self._kinds)
            owner = await self._kube.get(self._kinds[key.kind], key.namespace, key.name) if key else None
            if owner and owner["metadata"]["uid"] == uid:
                continue
            what = f"{resource.kind} {meta['namespace']}/{meta['name']}"
            log.warning("Deleting the ghost %s: its owner %s is gone", what, uid)
            try:
                await self._kube.delete(resource, meta["namespace"], meta["name"], uid=meta["uid"])
            except kube_errors.Conflict:
                continue  # already replaced by another object, which the next pass looks at
            self._count(resource.kind.lower(), 1)

    def _count(self, what: str, number: int) -> None:
        self._metrics.ghosts.labels(what).inc(number)


def _true_conditions(resource: Object) -> Iterable[str]:
    conditions = (resource.get("status") or {}).get("conditions") or []
    true = [each["type"] for each in conditions if each.get("status") == "True"]
    return true or ["None"]
