"""Who works at which attempt. Only "write if absent" is needed of the store, and no two clocks are compared.

A lease is the object of the highest generation. Its holder rewrites it now and then; whoever sees one unchanged for the
time to live, by his own clock, writes the next generation, which only one can. A holder that finds a later generation
than its own has lost the lease and lets go.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .blobs import Blobs


@dataclass
class Lease:
    """A lease that is held: call `renew` more often than the time to live."""

    blobs: Blobs
    folder: str
    generation: int
    owner: str
    session: str
    beats: int = 0

    def renew(self) -> bool:
        """Says that the holder lives; false if the lease was lost."""
        if _newest(self.blobs, self.folder) != self.generation:
            return False
        self.beats += 1
        self.blobs.put(_name(self.folder, self.generation), _body(self.owner, self.session, self.beats))
        return True

    def release(self) -> None:
        """Lets go, so that nobody has to wait."""
        self.blobs.put(_name(self.folder, self.generation), _body("", self.session, self.beats))


@dataclass
class Leases:
    """One worker's view of all leases.

    Attributes:
        owner: the worker's name: the same after a restart, unique at any time (the shard's index). A lease of the same
            owner from an earlier session is taken over at once.
        ttl: seconds after which an unchanged lease is dead.
    """

    blobs: Blobs
    owner: str
    ttl: float = 60
    clock: Callable[[], float] = time.monotonic
    session: str = field(default_factory=lambda: secrets.token_hex(8))
    _seen: dict[str, tuple[bytes, float]] = field(default_factory=dict)

    def acquire(self, folder: str) -> Lease | None:
        """The lease of a folder, or None while somebody else holds it."""
        newest = _newest(self.blobs, folder)
        if newest is not None and not self._free(folder, newest):
            return None
        generation = 0 if newest is None else newest + 1
        if not self.blobs.claim(_name(folder, generation), _body(self.owner, self.session, 0)):
            return None
        self._seen.pop(folder, None)
        return Lease(self.blobs, folder, generation, self.owner, self.session)

    def _free(self, folder: str, generation: int) -> bool:
        body = self.blobs.get(_name(folder, generation))
        if body is None:
            return True  # deleted with its attempt; the record decides
        holder = json.loads(body)
        if not holder["owner"] or (holder["owner"] == self.owner and holder["session"] != self.session):
            return True
        known = self._seen.get(folder)
        if known is None or known[0] != body:
            self._seen[folder] = (body, self.clock())
            return False
        return self.clock() - known[1] >= self.ttl


def _newest(blobs: Blobs, folder: str) -> int | None:
    names = [name.rpartition("/")[2] for name in blobs.names(folder)]
    return max((int(name.removesuffix(".json")) for name in names), default=None)


def _name(folder: str, generation: int) -> str:
    return f"{folder}/{generation:06d}.json"


def _body(owner: str, session: str, beats: int) -> bytes:
    return json.dumps({"owner": owner, "session": session, "beats": beats}).encode()
