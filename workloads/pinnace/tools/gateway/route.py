"""Which replica gets a call: version by weight, then the less busy of two at random. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pinnace.tools.gateway.breaker import Breaker


@dataclass(eq=False)
class Replica:
    """One address of one version of a server, and what the gateway knows about it.

    Args:
        url: of its MCP endpoint.
        in_flight: calls that it has now, from this gateway.
        era: protocol revision that it speaks; empty until it was asked.
        hung: health probes have no answer; calls in flight on it that are safe move elsewhere.
        unreachable: a connection to it failed, and no probe was answered since; others are picked.
        gone: it is not configured or not ready any more; calls in flight end.
        session: its `Mcp-Session-Id`, where it speaks an older revision.
        scopes: time limits (`asyncio.Timeout`) of calls that end when it is hung.
        probes: health probes in a row without an answer until it is hung.
    """

    url: str
    server: str
    version: str
    breaker: Breaker
    in_flight: int = 0
    era: str = ""
    hung: bool = False
    unreachable: bool = False
    gone: bool = False
    picks: int = 0
    session: str = ""
    scopes: set[Any] = field(default_factory=set)
    probes: int = 2


@dataclass
class Group:
    """The replicas of one version."""

    version: str
    weight: int
    replicas: list[Replica] = field(default_factory=list)


def pick(
    groups: Sequence[Group], *, now: float, rng: Random, limit: int, avoid: Collection[Replica] = ()
) -> Replica | None:
    """The replica for a call, or None when all are at their limit (or there is none).

    Replicas in `avoid` (already tried), ejected and unreachable ones come last: better than none. The weights hold
    among the versions that have a replica to offer; a version of weight 0 serves only when no other can.
    """
    if len(groups) == 1 and len(groups[0].replicas) == 1:  # the most common case needs no choice
        only = groups[0].replicas[0]
        return only if only.in_flight < limit else None
    healthy = [(group, _free(group, limit, now, avoid)) for group in groups]
    offers = [(group, replicas) for group, replicas in healthy if replicas]
    if not offers:
        rest = [each for group in groups for each in group.replicas if each.in_flight < limit]
        untried = [each for each in rest if each not in avoid]
        return _least_busy(untried or rest, rng) if rest else None
    weighted = [(group, replicas) for group, replicas in offers if group.weight > 0] or offers
    if len(weighted) == 1:
        return _least_busy(weighted[0][1], rng)
    chosen = rng.choices(weighted, weights=[max(group.weight, 1) for group, _ in weighted])[0]
    return _least_busy(chosen[1], rng)


def _free(group: Group, limit: int, now: float, avoid: Collection[Replica]) -> list[Replica]:
    return [
        each
        for each in group.replicas
        if each.in_flight < limit
        and not (each.hung or each.unreachable)
        and each.breaker.allows(now)
        and each not in avoid
    ]


def _least_busy(replicas: Sequence[Replica], rng: Random) -> Replica:
    if len(replicas) == 1:
        return replicas[0]
    first, second = rng.sample(range(len(replicas)), 2)
    return min(replicas[first], replicas[second], key=lambda each: each.in_flight)
