"""Leader election by a Lease of our own, and the fence that follows from it.

Only local, monotonic time counts: a replica notes when it *saw* the Lease change, never what clock its holder wrote.
So clocks that differ between nodes cannot make two leaders. The fence closes `margin` seconds before another replica
may take over, and requests are bounded by a timeout shorter than the margin: a leader that was frozen and wakes up
finds the fence closed before it can send anything.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pinnace_operator.runtime import kube_errors

log = logging.getLogger(__name__)


class LeaseClient(Protocol):
    """What election needs of the API server."""

    async def get_lease(self, namespace: str, name: str) -> dict[str, Any] | None: ...
    async def create_lease(self, manifest: Mapping[str, Any]) -> dict[str, Any]: ...
    async def replace_lease(self, manifest: Mapping[str, Any]) -> dict[str, Any]: ...


class Election:
    """One replica's part in the election.

    Args:
        duration: for how long others leave an unchanged Lease alone, in seconds.
        margin: how long before that our own writes stop; longer than a request's timeout.
        period: pause between two tries.
        clock: monotonic seconds that go on while the process is frozen.
    """

    def __init__(
        self,
        client: LeaseClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration: float = 15,
        margin: float = 5,
        period: float = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace, self._name = namespace, name
        self.identity = identity
        self._duration, self._margin, self._period = duration, margin, period
        self._clock = clock
        self._held_until = float("-inf")  # local time; our own writes are allowed before it
        self._seen: tuple[str, str] | None = None  # (uid, resourceVersion) of the Lease when last read
        self._seen_at = float("-inf")
        self.transitions = 0

    def leads(self) -> bool:
        """Whether this replica may write at this moment."""
        return self._clock() < self._held_until

    def fence(self) -> None:
        """Raise unless this replica may write at this moment.

        Raises:
            NotLeader: the Lease is not ours, or was not renewed in time.
        """
        if not self.leads():
            raise kube_errors.NotLeader(f"{self.identity} does not hold the Lease {self._namespace}/{self._name}")

    async def run(self, on_lead: Callable[[], None], on_lose: Callable[[], None]) -> None:
        """Campaign for ever; `on_lead` and `on_lose` are called at each change (`leads` may turn false earlier)."""
        led = False
        while True:
            try:
                await self.step()
            except kube_errors.KubeError as error:
                log.warning("Lease not renewed: %s", error)
            leads = self.leads()
            if leads != led:
                led = leads
                log.info("%s %s", self.identity, "leads" if leads else "stands by")
                (on_lead if leads else on_lose)()
            await asyncio.sleep(self._period)

    async def step(self) -> None:
        """Read the Lease once; renew it, take it, or leave it alone."""
        sent_at = self._clock()  # before the request: the server's clock for others starts no earlier
        lease = await self._client.get_lease(self._namespace, self._name)
        if lease is None:
            self._hold(await self._client.create_lease(self._manifest({}, transitions=0)), sent_at)
            return
        meta, spec = lease["metadata"], lease.get("spec") or {}
        if (seen := (meta["uid"], meta["resourceVersion"])) != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        holder = spec.get("holderIdentity") or ""
        theirs = holder not in ("", self.identity)
        # The longer of both durations: replicas of two versions may differ.
        patience = max(self._duration, float(spec.get("leaseDurationSeconds") or 0))
        if theirs and self._clock() < self._seen_at + patience:
            self._held_until = float("-inf")
            return
        transitions = int(spec.get("leaseTransitions") or 0) + (holder != self.identity)
        sent_at = self._clock()
        self._hold(await self._client.replace_lease(self._manifest(lease, transitions)), sent_at)

    async def release(self) -> None:
        """Give the Lease up, so that another replica need not wait; call it when no write is in flight."""
        if not self.leads():
            return
        self._held_until = float("-inf")
        lease = await self._client.get_lease(self._namespace, self._name)
        if lease and (lease.get("spec") or {}).get("holderIdentity") == self.identity:
            manifest = self._manifest(lease, int(lease["spec"].get("leaseTransitions") or 0))
            manifest["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
            await self._client.replace_lease(manifest)

    def _hold(self, lease: Mapping[str, Any], sent_at: float) -> None:
        self._seen, self._seen_at = (lease["metadata"]["uid"], lease["metadata"]["resourceVersion"]), self._clock()
        self._held_until = sent_at + self._duration - self._margin
        self.transitions = int(lease["spec"].get("leaseTransitions") or 0)

    def _manifest(self, lease: Mapping[str, Any], transitions: int) -> dict[str, Any]:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(lease.get("spec") or {})
        taken = spec.get("holderIdentity") != self.identity
        meta = {"namespace": self._namespace, "name": self._name}
        if lease:
            meta |= {"uid": lease["metadata"]["uid"], "resourceVersion": lease["metadata"]["resourceVersion"]}
        return {
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta,
            "spec": {
                "holderIdentity": self.identity, "leaseDurationSeconds": max(1, round(self._duration)),
                "acquireTime": now if taken else spec.get("acquireTime", now), "renewTime": now,
                "leaseTransitions": transitions,
            },
        }  # fmt: skip
