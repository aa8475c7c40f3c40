"""Asks providers in their order; one that fails is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pinnace.tools.servers.web.errors import NoProvider
from pinnace.tools.servers.web.providers import KNOWN, Provider, ProviderError, Result

_FIRST, _CAP = 5.0, 300.0
_RATE_LIMITED = 60.0
_REFUSED = 3600.0  # a key that is wrong now is wrong in a minute too


@dataclass
class _Health:
    failures: int = 0
    until: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Answer:
    """Results, who gave them, and who was asked in vain (name and why)."""

    provider: str
    results: list[Result]
    failed: tuple[tuple[str, str], ...]


class Search:
    """Several providers as one."""

    def __init__(self, providers: Sequence[Provider], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._providers = providers
        self._clock = clock
        self._health = {provider.name: _Health() for provider in providers}

    async def search(self, query: str, count: int) -> Answer:
        """The first answer that comes.

        Raises:
            NoProvider: None is configured, or all fail or cool down; the message says which variable or how long.
        """
        if not self._providers:
            variables = ", ".join(variable for variable, _ in KNOWN.values())
            raise NoProvider(f"no search provider is configured: set one of {variables} from a Secret")
        failed: list[tuple[str, str]] = []
        for provider in self._providers:
            health = self._health[provider.name]
            if health.until > self._clock():
                failed.append((provider.name, f"{health.why}; asked again in {health.until - self._clock():.0f} s"))
                continue
            try:
                results = await provider.search(query, count)
            except ProviderError as error:
                health.failures += 1
                health.why = str(error)
                health.until = self._clock() + cool_down(error, health.failures)
                failed.append((provider.name, str(error)))
                continue
            self._health[provider.name] = _Health()
            return Answer(provider.name, results, tuple(failed))
        raise NoProvider("no search provider answers: " + "; ".join(f"{name}: {why}" for name, why in failed))


def cool_down(error: ProviderError, failures: int) -> float:
    """Seconds for which a provider is left alone after its `failures`-th failure in a row."""
    if error.retry_after is not None:
        return min(error.retry_after, _REFUSED)
    if error.status == 429:
        return _RATE_LIMITED
    if error.status in {401, 402, 403}:
        return _REFUSED
    return float(min(_CAP, _FIRST * 2 ** min(failures - 1, 10)))
