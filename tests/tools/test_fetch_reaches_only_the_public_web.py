"""Attempts to make the page fetch reach what it must not, all on loopback; and what a page may do to it."""

from __future__ import annotations

import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from pinnace.tools.outcome import Outcome
from pinnace.tools.servers.web import fetch as fetch_module
from pinnace.tools.servers.web.addresses import Policy, require_public
from pinnace.tools.servers.web.errors import AddressDenied, BadPage, Unreachable
from pinnace.tools.servers.web.fetch import Fetcher

SECRET = "the secret of an internal service"


@dataclass
class Site:
    """A site on loopback that counts who comes."""

    address: str
    port: int
    hits: list[str] = field(default_factory=list)


Serve = Callable[..., Awaitable[Site]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve({path: handler})` on 127.0.0.1 or another loopback address."""
    runners: list[web.AppRunner] = []

    async def start(pages: dict[str, Callable[[], web.StreamResponse]], host: str = "127.0.0.1", port: int = 0) -> Site:
        site = Site(host, port)

        async def answer(request: web.Request) -> web.StreamResponse:
            site.hits.append(str(request.rel_url))
            return pages[request.path]()

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        site.port = runner.addresses[0][1]
        return site

    yield start
    for runner in runners:
        await runner.cleanup()


def text(body: str = SECRET) -> Callable[[], web.StreamResponse]:
    return lambda: web.Response(text=body)


def to(location: str) -> Callable[[], web.StreamResponse]:
    return lambda: web.Response(status=302, headers={"Location": location})


def around(site: Site, **more: object) -> Fetcher:
    """A fetcher for which `world.test` is that site, and every port is usual."""
    stand_ins = {"world.test": f"http://{site.address}:{site.port}"}
    return Fetcher(Policy(stand_ins, frozenset(range(1, 65536))), **more)  # type: ignore[arg-type]


async def here(host: str, port: int) -> list[str]:
    """The system's resolver without the network: numbers in every spelling that it takes, and localhost."""
    if host.rstrip(".").lower() == "localhost":
        return ["127.0.0.1", "::1"]
    return [
        str(each[4][0]) for each in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM)
    ]


LITERAL = [
    *(
        "127.0.0.1",
        "127.1",
        "127.0.0.2",
        "0.0.0.0",
        "0",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "017700000001",
        "localhost",
    ),
    *(
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::1]",
        "[fe80::1%25lo]",
    ),
    *("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.2.1", "224.0.0.1", "[fd00::1]"),
    *("127\u30020\u30020\u30021", "\uff11\uff12\uff17.0.0.1", "①②⑦.0.0.1", "localhost.", "LOCALHOST", "127.0.0.1."),
]


@pytest.mark.parametrize("host", LITERAL)
async def test_no_spelling_of_a_private_address_is_connected_to(serve: Serve, host: str) -> None:
    site = await serve({"/": text()})
    with pytest.raises(AddressDenied):
        await around(site, lookup=here).fetch(f"http://{host}:{site.port}/")
    assert site.hits == []


@pytest.mark.parametrize(
    "address",
    [
        *(
            "file:///etc/passwd",
            "ftp://example.com/",
            "gopher://127.0.0.1:6379/_INFO",
            "javascript:alert(1)",
            "//example.com",
            "",
        ),
        *(
            "http://",
            "http://user:secret@example.com/",
            "http://example.com:22/",
            "http://example.com:6443/",
            "http://exa mple.com/",
        ),
        *(
            "http://example.com/\r\nX-Injected: 1",
            "http://example.com:99999/",
            "http://[::1",
            "data:text/html,x",
            "http://" + "a" * 3000,
        ),
    ],
)
async def test_what_is_no_plain_web_address_is_refused_without_a_look_up(address: str) -> None:
    async def never(host: str, port: int) -> list[str]:
        pytest.fail(f"looked up {host}")

    with pytest.raises(AddressDenied):
        await Fetcher(Policy(), lookup=never).fetch(address)


@pytest.mark.parametrize(
    "answers", [["127.0.0.1"], ["::1"], ["169.254.169.254"], ["93.184.216.34", "127.0.0.1"], ["::ffff:10.0.0.1"]]
)
async def test_a_name_of_which_any_address_is_private_is_not_connected_to(serve: Serve, answers: list[str]) -> None:
    site = await serve({"/": text()})

    async def lookup(host: str, port: int) -> list[str]:
        return answers

    with pytest.raises(AddressDenied, match="not on the public web"):
        await around(site, lookup=lookup).fetch(f"http://metadata.example:{site.port}/")
    assert site.hits == []


async def test_a_name_server_that_changes_its_answer_is_asked_once_only(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: 127.0.0.2 plays the public address of the first answer, 127.0.0.1 is the internal one."""
    public = await serve({"/": text("public page")}, host="127.0.0.2")
    internal = await serve({"/": text()}, host="127.0.0.1", port=public.port)
    monkeypatch.setattr(
        fetch_module,
        "require_public",
        lambda host, address: str(address) == "127.0.0.2" or require_public(host, address),
    )
    answers = iter([["127.0.0.2"], ["127.0.0.1"], ["127.0.0.1"]])
    asked = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    fetcher = around(public, lookup=lookup)
    assert (await fetcher.fetch(f"http://rebinding.example:{public.port}/")).body == b"public page"
    assert asked == ["rebinding.example"]
    with pytest.raises(AddressDenied):  # the next page is looked up and checked anew
        await fetcher.fetch(f"http://rebinding.example:{public.port}/")
    assert internal.hits == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "127\u30020\u30020\u30021"])
async def test_a_redirect_from_an_allowed_page_to_a_private_address_is_not_followed(serve: Serve, host: str) -> None:
    internal = await serve({"/secret": text()})
    outer = await serve({"/": to(f"http://{host}:{internal.port}/secret")})
    with pytest.raises(AddressDenied):
        await around(outer, lookup=here).fetch("http://world.test/")
    assert internal.hits == []


async def test_a_redirect_to_another_scheme_is_not_followed(serve: Serve) -> None:
    outer = await serve({"/": to("file:///etc/passwd")})
    with pytest.raises(AddressDenied, match="only http"):
        await around(outer).fetch("http://world.test/")


async def test_redirects_within_the_allowed_site_are_followed_up_to_five(serve: Serve) -> None:
    site = await serve({"/a": to("/b"), "/b": to("http://world.test/c"), "/c": text("there"), "/loop": to("/loop")})
    found = await around(site).fetch("http://world.test/a")
    assert (found.url, found.body) == ("http://world.test/c", b"there")
    site.hits.clear()
    with pytest.raises(BadPage, match="redirects"):
        await around(site).fetch("http://world.test/loop")
    assert len(site.hits) == 6


async def test_only_the_very_host_of_the_stand_in_is_allowed(serve: Serve) -> None:
    site = await serve({"/": text()})
    for host in ("world.test:8080", "world.test.example", "xworld.test", f"world.test:{site.port}"):

        async def lookup(name: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        with pytest.raises(AddressDenied):
            await around(site, lookup=lookup).fetch(f"http://{host}/")
    assert site.hits == []


async def test_a_proxy_of_the_environment_is_not_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, site = await serve({"/": text("by proxy")}), await serve({"/": text("direct")})
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    assert (await around(site).fetch("http://world.test/")).body == b"direct"


def packed(size: int) -> Callable[[], web.StreamResponse]:
    return lambda: web.Response(body=gzip.compress(b"\0" * size), headers={"Content-Encoding": "gzip"})


async def test_a_packed_page_is_unpacked_and_a_bomb_is_not(serve: Serve) -> None:
    site = await serve({"/small": packed(100), "/bomb": packed(200 << 20)})
    assert (await around(site).fetch("http://world.test/small")).body == b"\0" * 100
    with pytest.raises(BadPage, match="unpacks to more than 8 MiB"):
        await around(site).fetch("http://world.test/bomb")


async def test_a_page_without_end_is_cut_off(serve: Serve) -> None:
    site = await serve({"/": lambda: web.Response(body=b"x" * (9 << 20))})
    with pytest.raises(BadPage, match="larger than 8 MiB"):
        await around(site).fetch("http://world.test/")


async def test_a_site_that_does_not_answer_is_unavailable(serve: Serve) -> None:
    site = await serve({"/": text()})

    async def never(host: str, port: int) -> list[str]:
        import asyncio

        await asyncio.Event().wait()
        return []

    with pytest.raises(Unreachable, match=r"did not answer in 0\.05 seconds"):
        await around(site, lookup=never, seconds=0.05).fetch("http://slow.example/")


async def test_an_error_page_is_a_tool_error_and_a_refusal_is_denied(serve: Serve) -> None:
    site = await serve({"/": lambda: web.Response(status=404)})
    with pytest.raises(BadPage, match="404") as wrong:
        await around(site).fetch("http://world.test/")
    assert wrong.value.outcome is Outcome.TOOL_ERROR
    assert AddressDenied.outcome is Outcome.DENIED
