"""Search providers: each turns a query into results through one API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

_SECONDS = 15.0


@dataclass(frozen=True)
class Result:
    """One result of a search."""

    title: str
    url: str
    snippet: str


class ProviderError(Exception):
    """The provider does not answer. `status` is HTTP's (0: no answer at all), `retry_after` its own word in seconds."""

    def __init__(self, message: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Provider(Protocol):
    """Anything that can be asked."""

    @property
    def name(self) -> str:
        """As in PINNACE_SEARCH_PROVIDERS."""

    async def search(self, query: str, count: int) -> list[Result]:
        """At most `count` results, best first.

        Raises:
            ProviderError: It does not answer.
        """


@dataclass(frozen=True)
class Api:
    """A provider that is one HTTP request: how to ask, and where the results are in the answer."""

    name: str
    url: str
    ask: Callable[[str, int], dict[str, Any]]
    results: Callable[[Any], list[Any]]
    fields: tuple[str, str, str]
    method: str = "GET"

    async def search(self, query: str, count: int) -> list[Result]:
        """See `Provider`."""
        try:
            timeout = aiohttp.ClientTimeout(total=_SECONDS)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(self.method, self.url, **self.ask(query, count)) as response,
            ):
                if response.status != 200:
                    wait = response.headers.get("Retry-After", "")
                    seconds = float(wait) if wait.isdigit() else None
                    raise ProviderError(f"HTTP {response.status}", status=response.status, retry_after=seconds)
                found = self.results(await response.json(content_type=None))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            raise ProviderError(f"{type(error).__name__}: {error}") from None
        title, url, snippet = self.fields
        return [
            Result(str(each.get(title, "")), str(each.get(url, "")), str(each.get(snippet, "")))
            for each in found[:count]
        ]


def brave(key: str, base: str = "https://api.search.brave.com") -> Provider:
    """Brave Search API, web search."""
    return Api(
        "brave",
        f"{base}/res/v1/web/search",
        lambda query, count: {
            "params": {"q": query, "count": min(count, 20)},
            "headers": {"X-Subscription-Token": key},
        },
        lambda answer: answer.get("web", {}).get("results", []),
        ("title", "url", "description"),
    )


def tavily(key: str, base: str = "https://api.tavily.com") -> Provider:
    """Tavily search."""
    return Api(
        "tavily",
        f"{base}/search",
        lambda query, count: {
            "json": {"query": query, "max_results": min(count, 20)},
            "headers": {"Authorization": f"Bearer {key}"},
        },
        lambda answer: answer["results"],
        ("title", "url", "content"),
        method="POST",
    )


def serper(key: str, base: str = "https://google.serper.dev") -> Provider:
    """Serper: Google's results."""
    return Api(
        "serper",
        f"{base}/search",
        lambda query, count: {"json": {"q": query, "num": min(count, 20)}, "headers": {"X-API-KEY": key}},
        lambda answer: answer.get("organic", []),
        ("title", "link", "snippet"),
        method="POST",
    )


def searxng(base: str) -> Provider:
    """A SearXNG instance of one's own; its JSON format must be enabled."""
    return Api(
        "searxng",
        f"{base.rstrip('/')}/search",
        lambda query, _: {"params": {"q": query, "format": "json"}},
        lambda answer: answer["results"],
        ("title", "url", "content"),
    )


def world(base: str) -> Provider:
    """The offline world (`pinnace tools world serve`)."""
    return Api(
        "world",
        f"{base.rstrip('/')}/api/search",
        lambda query, count: {"params": {"q": query, "size": count}},
        lambda answer: answer["results"],
        ("title", "url", "snippet"),
    )


# In the order in which they are asked when nothing else is said.
KNOWN: dict[str, tuple[str, Callable[[str], Provider]]] = {
    "brave": ("BRAVE_API_KEY", brave),
    "tavily": ("TAVILY_API_KEY", tavily),
    "serper": ("SERPER_API_KEY", serper),
    "searxng": ("SEARXNG_URL", searxng),
    "world": ("PINNACE_WORLD_URL", world),
}


def configured(environment: Mapping[str, str]) -> list[Provider]:
    """The providers whose variable is set, in the order of PINNACE_SEARCH_PROVIDERS (names by commas) or of `KNOWN`.

    Raises:
        ValueError: The order names a provider that does not exist.
    """
    order = [name for name in environment.get("PINNACE_SEARCH_PROVIDERS", "").split(",") if name] or list(KNOWN)
    if unknown := set(order) - set(KNOWN):
        raise ValueError(f"no search providers: {', '.join(sorted(unknown))}; known are {', '.join(KNOWN)}")
    return [KNOWN[name][1](environment[KNOWN[name][0]]) for name in order if environment.get(KNOWN[name][0])]
