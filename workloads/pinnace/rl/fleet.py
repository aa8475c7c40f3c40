"""The rollout servers as one engine: each follows the newest weights, proves it, or is not asked.

A server is *admitted* once it has acknowledged the newest version and its log-probs of the probe are the trainer's.
Whatever it does wrong (no answer, impossible tokens, other weights) puts it into *quarantine*: the answers it owes are
asked of others, and it is loaded anew and probed until it is admitted again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from .config import ProbeConfig
from .metrics import labelled
from .rollout import (
    EngineUnavailable,
    EngineUnsuitable,
    Generation,
    RolloutEngine,
    SamplingParameters,
    WeightsNotLoaded,
)
from .types import InvalidTurn, check_tokens
from .weights import Probe, Publication, Weights

log = logging.getLogger(__name__)
Connect = Callable[[], Awaitable[RolloutEngine]]
Localise = Callable[[Publication], Awaitable[str]]
_TRIES = 8


class Doubtful(RuntimeError):
    """A server does not have the weights that it was given."""


_FAULTS = (EngineUnavailable, EngineUnsuitable, WeightsNotLoaded, Doubtful, InvalidTurn, TimeoutError)


@dataclass
class _Member:
    name: str
    connect: Connect
    engine: RolloutEngine | None = None
    version: int | None = None  # admitted with; None: in quarantine
    reason: str = "not loaded yet"
    faults: int = 0
    requests: set[asyncio.Task[Generation]] = field(default_factory=set)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


async def _as_it_is(publication: Publication) -> str:
    return publication.uri


class Fleet:
    """A `TokenSource` of many servers. Run `keep_up` beside it."""

    def __init__(
        self,
        servers: Mapping[str, Connect],
        weights: Weights,
        *,
        probe: ProbeConfig,
        temperature: float = 1.0,
        mirrors: Mapping[str, Localise] | None = None,
        hold_seconds: float = 300,
        update_seconds: float = 600,
    ) -> None:
        """`mirrors` say what a publication is called at a server's place; `hold_seconds` is how long a request waits
        while no server is admitted."""
        self.counts: Counter[str] = Counter()
        self._members = {name: _Member(name, connect) for name, connect in servers.items()}
        self._weights, self._probe, self._temperature = weights, probe, temperature
        self._mirrors = mirrors or {}
        self._hold, self._limit = hold_seconds, update_seconds
        self._admitted = asyncio.Condition()
        self._updating = asyncio.Lock()

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation:
        """By whichever server; by another where one fails. Raises `EngineUnavailable`."""
        for _ in range(_TRIES):
            member, engine = await self._least_busy()
            if (made := await self._ask(member, engine, ids, parameters)) is not None:
                return made
        raise EngineUnavailable(f"{_TRIES} servers in a row failed: {self.status()}")

    async def update(self) -> dict[str, int | str]:
        """Brings every server to the newest weights; returns each one's version, or why it has none."""
        async with self._updating:
            newest = await asyncio.to_thread(self._weights.newest)
            behind = [one for one in self._members.values() if newest is not None and one.version != newest.version]
            if newest is not None and behind:
                probe = await asyncio.to_thread(self._weights.probe, newest)
                await asyncio.gather(*(self._bring(one, newest, probe) for one in behind))
        return self.status()

    async def keep_up(self, *, every: float = 2.0) -> None:
        """For servers that come back, and for news that nobody told us of."""
        while True:
            try:
                await self.update()
            except Exception:  # storage is away for a while: the servers go on with what they have
                log.exception("the newest weights can't be read")
            await asyncio.sleep(every)

    def status(self) -> dict[str, int | str]:
        return {name: one.reason if one.version is None else one.version for name, one in self._members.items()}

    def values(self) -> dict[str, float]:
        """For the metrics."""
        versions = {name: -1 if one.version is None else one.version for name, one in self._members.items()}
        in_flight = {name: len(one.requests) for name, one in self._members.items()}
        return {
            **labelled("server_version", "server", versions),
            **labelled("server_in_flight", "server", in_flight),
            **labelled("fleet_events", "kind", self.counts),
        }

    async def _ask(
        self, member: _Member, engine: RolloutEngine, ids: Sequence[int], parameters: SamplingParameters
    ) -> Generation | None:
        """One server's answer; None when it can't be used. What ends during an update waits for the probe's verdict."""
        faults, task = member.faults, asyncio.ensure_future(engine.generate(ids, parameters))
        member.requests.add(task)
        try:
            await asyncio.wait([task])
            async with member.changing:
                pass
            if task.cancelled() or member.faults != faults:
                self.counts["thrown_away"] += 1
                return None
            made = task.result()
            check_tokens(len(made.ids), made.behaviour_logprobs, made.policy_versions)
            return made
        except (EngineUnavailable, InvalidTurn) as error:
            self._quarantine(member, error)
            return None
        finally:
            member.requests.discard(task)
            task.cancel()

    async def _least_busy(self) -> tuple[_Member, RolloutEngine]:
        def admitted() -> list[tuple[_Member, RolloutEngine]]:
            return [(one, one.engine) for one in self._members.values() if one.engine and one.version is not None]

        try:
            async with asyncio.timeout(self._hold), self._admitted:
                await self._admitted.wait_for(admitted)
        except TimeoutError:
            raise EngineUnavailable(f"no server is admitted: {self.status()}") from None
        return min(admitted(), key=lambda one: len(one[0].requests))

    async def _bring(self, member: _Member, newest: Publication, probe: Probe) -> None:
        """One server to the newest weights, or into quarantine."""
        async with member.changing:
            try:
                async with asyncio.timeout(self._limit):
                    engine = member.engine or await member.connect()
                    member.engine = engine
                    where = await self._mirrors.get(member.name, _as_it_is)(newest)
                    await engine.pause()
                    await engine.load_weights(newest.version, PurePath(where))
                    await engine.resume()
                    await self._check(engine, newest.version, probe)
            except _FAULTS as error:
                self._quarantine(member, error)
                return
            member.version, member.reason = newest.version, ""
            self.counts["updated"] += 1
        async with self._admitted:
            self._admitted.notify_all()

    async def _check(self, engine: RolloutEngine, version: int, probe: Probe) -> None:
        if (found := await engine.version()) != version:
            raise Doubtful(f"version {found} was acknowledged in place of {version}")
        once = SamplingParameters(temperature=self._temperature, max_tokens=1)
        for made in await asyncio.gather(*(engine.generate(probe.ids, once) for _ in range(self._probe.draws))):
            check_tokens(len(made.ids), made.behaviour_logprobs, made.policy_versions)
            for token, logprob in zip(made.ids, made.behaviour_logprobs, strict=True):
                if not abs(logprob - probe.logprobs[token]) <= self._probe.tolerance:
                    raise Doubtful(
                        f"the probe's token {token} has log-prob {logprob:.4f}, the trainer says "
                        f"{probe.logprobs[token]:.4f}: other weights, or a stale cache"
                    )

    def _quarantine(self, member: _Member, error: Exception) -> None:
        if member.version is not None or str(error) != member.reason:
            log.warning("server %s is in quarantine: %s: %s", member.name, type(error).__name__, error)
        member.version, member.reason, member.faults = None, str(error) or type(error).__name__, member.faults + 1
        self.counts[f"quarantined_{type(error).__name__}"] += 1
        for request in member.requests:
            request.cancel()
