"""Fetches one page: checked address, pinned connection, redirects checked each, bounded size and time."""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from pinnace.tools.servers.web.addresses import Policy, literal_address, require_public
from pinnace.tools.servers.web.errors import AddressDenied, BadPage, Unreachable

_REDIRECTS = 5
_LARGEST = 8 << 20
_SECONDS = 20.0
_AGENT = "pinnace-fetch/1"
_ACCEPT = "text/html,application/pdf,text/*;q=0.9,*/*;q=0.5"
Lookup = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True)
class Fetched:
    """What came. `url` is where it came from, after redirects."""

    url: str
    content_type: str
    charset: str | None
    body: bytes


async def system_lookup(host: str, port: int) -> list[str]:
    """All addresses that the system's resolver gives."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Pinned(AbstractResolver):
    """A resolver that gives a connection only addresses that were checked."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Looks up once, checks every address, and returns just these.

        Raises:
            AddressDenied: One of them is not public (all are refused, lest the order decide).
        """
        found = []
        for text in await self._lookup(host, port):
            address = literal_address(text)
            if address is None:
                raise AddressDenied(f"{host} has no usable address")
            require_public(host, address)
            kind = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            if family in (socket.AF_UNSPEC, kind):
                found.append(
                    ResolveResult(
                        hostname=host, host=text, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
                    )
                )
        return found

    async def close(self) -> None:
        """Nothing is held."""


class Fetcher:
    """Fetches pages under one policy, each over a connection of its own: no permission outlives its page."""

    def __init__(self, policy: Policy, *, lookup: Lookup = system_lookup, seconds: float = _SECONDS) -> None:
        self._policy = policy
        self._lookup = lookup
        self._seconds = seconds

    async def fetch(self, url: str) -> Fetched:
        """The page at an address, at most 8 MiB of it, in 20 seconds.

        Raises:
            AddressDenied, Unreachable, BadPage: As they say.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(url)
        except TimeoutError:
            raise Unreachable(f"{url} did not answer in {self._seconds:.3g} seconds") from None

    async def _follow(self, url: str) -> Fetched:
        for _ in range(_REDIRECTS + 1):
            found = await self._once(url)
            if isinstance(found, Fetched):
                return found
            url = urljoin(url, found)
        raise BadPage(f"more than {_REDIRECTS} redirects, the last to {url[:200]}")

    async def _once(self, url: str) -> Fetched | str:
        """The page, or where it redirects to."""
        address = self._policy.target(url)
        headers = {"User-Agent": _AGENT, "Accept-Encoding": "gzip", "Accept": _ACCEPT}
        site = address.host_port_subcomponent or ""
        stand_in = self._policy.stand_ins.get(site)
        if stand_in:
            headers["Host"] = site
            address = URL(stand_in.rstrip("/") + address.raw_path_qs, encoded=True)
        resolver = None if stand_in else Pinned(self._lookup)
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
        try:
            async with (
                # trust_env=False: a proxy would resolve the name again, elsewhere.
                aiohttp.ClientSession(connector=connector, auto_decompress=False, trust_env=False) as session,
                session.get(address, headers=headers, allow_redirects=False) as response,
            ):
                if response.status in {301, 302, 303, 307, 308} and "Location" in response.headers:
                    return response.headers["Location"]
                if response.status != 200:
                    raise BadPage(f"{url} answers {response.status} {response.reason}")
                body = _unpacked(await _read(response), response.headers.get("Content-Encoding", "identity"))
                return Fetched(url, response.content_type, response.charset, body)
        except AddressDenied:
            raise
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(cause := error.__cause__, AddressDenied):
                raise cause from None
            raise Unreachable(f"{url} can't be reached: {error}") from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > _LARGEST:
            raise BadPage(f"the page is larger than {_LARGEST >> 20} MiB")
    return bytes(body)


def _unpacked(body: bytes, encoding: str) -> bytes:
    """Decompressed, and no further than the largest page: a bomb ends there."""
    if encoding.lower() in {"identity", ""}:
        return body
    if encoding.lower() not in {"gzip", "x-gzip", "deflate"}:
        raise BadPage(f"the page is packed as {encoding}, which was not asked for")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        unpacked = unpacker.decompress(body, _LARGEST)
    except zlib.error as error:
        raise BadPage(f"the page can't be unpacked: {error}") from None
    if unpacker.unconsumed_tail:
        raise BadPage(f"the page unpacks to more than {_LARGEST >> 20} MiB")
    return unpacked
