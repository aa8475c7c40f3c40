"""The rollout servers as one engine: each follows the newest weights, proves it, or is not asked.

A server is *admitted* once it has acknowledged the newest version and its log-probs of the probe are the trainer's.
Whatever it does wrong (no answer, impossible tokens, other weights) puts it into *quarantine*; from there it is loaded
anew and probed again until it is admitted. What a server wrote while it was found out is thrown away and asked again.
A server that is killed loses nothing but the turns under way, and those go on elsewhere from the tokens that are known.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from .config import ProbeConfig
from .metrics import labelled
from .rollout import EngineUnavailable, Generation, RolloutServer, SamplingParameters
from .types import InvalidTurn, check_tokens
from .weights import Probe, Publication, Weights

log = logging.getLogger(__name__)
Localise = Callable[[Publication], Awaitable[str]]
_TRIES = 8


class Doubtful(RuntimeError):
    """A server does not have the weights that it was given."""


@dataclass
class _Member:
    server: RolloutServer
    version: int | None = None  # admitted with; None: in quarantine
    reason: str = "not loaded yet"
    in_flight: int = 0
    doubts: int = 0  # how often it was found out


async def _as_it_is(publication: Publication) -> str:
    return publication.uri


class Fleet:
    """A `RolloutEngine` of many servers. Run `keep_up` beside it."""

    def __init__(
        self,
        servers: Mapping[str, RolloutServer],
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
        self._members = {name: _Member(server) for name, server in servers.items()}
        self._weights, self._probe, self._temperature = weights, probe, temperature
        self._mirrors = mirrors or {}
        self._hold, self._limit = hold_seconds, update_seconds
        self._admitted = asyncio.Condition()
        self._updating = asyncio.Lock()

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation:
        """Whole, whatever number of servers and versions it took."""
        made, failures = Generation(ids=(), behaviour_logprobs=(), policy_versions=(), finish="abort"), 0
        while made.finish == "abort":
            left = parameters.max_tokens - len(made.ids)
            if left <= 0:
                return replace(made, finish="length")
            piece = await self._piece([*ids, *made.ids], replace(parameters, max_tokens=left))
            if piece is not None:
                made = Generation(
                    ids=made.ids + piece.ids,
                    behaviour_logprobs=made.behaviour_logprobs + piece.behaviour_logprobs,
                    policy_versions=made.policy_versions + piece.policy_versions,
                    finish=piece.finish,
                )
                self.counts["resumed"] += piece.finish == "abort"
            elif (failures := failures + 1) == _TRIES:
                raise EngineUnavailable(f"{_TRIES} servers in a row failed: {self.status()}")
        return made

    async def update(self) -> dict[str, int | str]:
        """Brings every server to the newest weights; returns each one's version, or why it has none."""
        async with self._updating:
            newest = await asyncio.to_thread(self._weights.newest)
            if newest is not None:
                behind = [(name, one) for name, one in self._members.items() if one.version != newest.version]
                if behind:
                    probe = await asyncio.to_thread(self._weights.probe, newest)
                    await asyncio.gather(*(self._bring(name, one, newest, probe) for name, one in behind))
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
        in_flight = {name: one.in_flight for name, one in self._members.items()}
        return {
            **labelled("server_version", "server", versions),
            **labelled("server_in_flight", "server", in_flight),
            **labelled("fleet_events", "kind", self.counts),
        }

    async def _piece(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation | None:
        """What one server makes of it; None when it can't be used."""
        member = await self._least_busy()
        doubts, member.in_flight = member.doubts, member.in_flight + 1
        try:
            made = await member.server.generate(ids, parameters)
            check_tokens(len(made.ids), made.behaviour_logprobs, made.policy_versions)
        except (EngineUnavailable, InvalidTurn) as error:
            self._quarantine(member, error)
            return None
        finally:
            member.in_flight -= 1
        if member.doubts != doubts:
            self.counts["thrown_away"] += 1
            return None
        return made

    async def _least_busy(self) -> _Member:
        try:
            async with asyncio.timeout(self._hold), self._admitted:
                await self._admitted.wait_for(lambda: any(one.version is not None for one in self._members.values()))
        except TimeoutError:
            raise EngineUnavailable(f"no server is admitted: {self.status()}") from None
        return min((one for one in self._members.values() if one.version is not None), key=lambda one: one.in_flight)

    async def _bring(self, name: str, member: _Member, newest: Publication, probe: Probe) -> None:
        """One server to the newest weights, or into quarantine."""
        try:
            async with asyncio.timeout(self._limit):
                where = await self._mirrors.get(name, _as_it_is)(newest)
                await member.server.pause()
                try:
                    await member.server.load_weights(newest.version, where)
                finally:
                    await member.server.resume()
                await self._check(member.server, newest.version, probe)
        except (EngineUnavailable, Doubtful, InvalidTurn, TimeoutError) as error:
            self._quarantine(member, error)
            return
        member.version, member.reason = newest.version, ""
        self.counts["updated"] += 1
        async with self._admitted:
            self._admitted.notify_all()

    async def _check(self, server: RolloutServer, version: int, probe: Probe) -> None:
        if (found := await server.version()) != version:
            raise Doubtful(f"version {found} was acknowledged in place of {version}")
        once = SamplingParameters(temperature=self._temperature, max_tokens=1)
        for made in await asyncio.gather(*(server.generate(probe.ids, once) for _ in range(self._probe.draws))):
            check_tokens(len(made.ids), made.behaviour_logprobs, made.policy_versions)
            for token, logprob in zip(made.ids, made.behaviour_logprobs, strict=True):
                if not abs(logprob - probe.logprobs[token]) <= self._probe.tolerance:
                    raise Doubtful(
                        f"the probe's token {token} has log-prob {logprob:.4f}, the trainer says "
                        f"{probe.logprobs[token]:.4f}: other weights, or a stale cache"
                    )

    def _quarantine(self, member: _Member, error: Exception) -> None:
        name = next(name for name, one in self._members.items() if one is member)
        if member.version is not None or str(error) != member.reason:
            log.warning("server %s is in quarantine: %s: %s", name, type(error).__name__, error)
        member.version, member.reason, member.doubts = None, str(error) or type(error).__name__, member.doubts + 1
        self.counts[f"quarantined_{type(error).__name__}"] += 1
