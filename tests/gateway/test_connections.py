"""The hop's HTTP/1.1: responses in any pieces, faults typed by what can have run, no connection used again in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from pinnace.tools.gateway.breaker import Breaker
from pinnace.tools.gateway.connection import Broken, Connections, Response, Unreachable
from pinnace.tools.gateway.retry import Reach
from pinnace.tools.gateway.route import Replica
from pinnace.tools.gateway.upstream import MAX_MESSAGE, Failed, Upstream
from pinnace.tools.outcome import Outcome

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"


class Server:
    """Answers each request with what `answer` writes; counts connections, and keeps the requests as they came."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections = 0
        self.requests: list[bytes] = []
        self.asked = asyncio.Event()
        self.closed = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                self.asked.set()
                await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Server]:
    made = Server(answer)
    listener = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/mcp"
    try:
        yield made
    finally:
        listener.close()


def pieces(*parts: bytes) -> Answer:
    """Each part on its own, and seen on its own by the other side."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)

    return answer


def then_closes(data: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return answer


async def whole(response: Response) -> bytes:
    return b"".join([chunk async for chunk in response.chunks()])


async def posts(server: Server, count: int = 1) -> list[bytes]:
    connections = Connections()
    try:
        return [await connections.post(server.url, b"{}", {"A": "b"}, whole) for _ in range(count)]
    finally:
        connections.close()


@pytest.mark.parametrize(
    "answer",
    [
        pieces(OK),
        pieces(*(OK[at : at + 1] for at in range(len(OK)))),
        pieces(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r", b"\nllo\r\n0\r\n", b"\r\n"),
        pieces(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK),
    ],
    ids=["at once", "byte by byte", "chunked", "after informational ones"],
)
async def test_a_whole_response_is_read_and_its_connection_used_again(answer: Answer) -> None:
    async with serving(answer) as server:
        assert await posts(server, 3) == [b"hello"] * 3
        assert server.connections == 1


async def test_a_request_is_what_was_asked_for() -> None:
    async with serving(pieces(OK)) as server:
        await posts(server)
        host = server.url.split("/")[2].encode()
        assert server.requests == [b"POST /mcp HTTP/1.1\r\nHost: " + host + b"\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"]


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\nb", "a\0b"])
async def test_a_header_that_would_become_two_is_never_sent(value: str) -> None:
    async with serving(pieces(OK)) as server:
        with pytest.raises(ValueError, match="line break"):
            await Connections().post(server.url, b"{}", {"A": value, "C": "d"}, whole)
        assert server.connections == 0


@pytest.mark.parametrize(
    "answer",
    [
        then_closes(b"HTTP/1.1 200 OK\r\n\r\nhello"),
        pieces(OK.replace(b"Content-Length", b"Connection: close\r\nContent-Length")),
        pieces(OK + OK),
        pieces(OK + b"HTTP/1.1 2"),
        pieces(OK, b"HTTP/1.1 2"),
    ],
    ids=["ended by its close", "told to close", "another follows", "the begin of another", "later, unasked"],
)
async def test_after_a_response_that_leaves_doubt_a_new_connection_is_made(answer: Answer) -> None:
    async with serving(answer) as server:
        connections = Connections()
        for _ in range(2):
            assert await connections.post(server.url, b"{}", {}, whole) == b"hello"
            await asyncio.sleep(0.05)  # what comes unasked has come
        assert server.connections == 2
        connections.close()


async def test_a_response_that_was_not_read_to_its_end_ends_its_connection() -> None:
    async def nothing(_: Response) -> bytes:
        return b""

    async with serving(pieces(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")) as server:
        connections = Connections()
        await connections.post(server.url, b"{}", {}, nothing)
        await asyncio.wait_for(server.closed.wait(), 10)
        await connections.post(server.url, b"{}", {}, nothing)
        assert server.connections == 2
        connections.close()


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used() -> None:
    async with serving(then_closes(OK)) as server:
        connections = Connections()
        for _ in range(3):
            assert await connections.post(server.url, b"{}", {}, whole) == b"hello"
            await asyncio.sleep(0.05)
        assert server.connections == 3


@pytest.mark.parametrize(
    "answer",
    [
        then_closes(b""),
        then_closes(b"HTTP/1.1 200 OK\r\nContent-Le"),
        then_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"),
        then_closes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        pieces(b"SSH-2.0-OpenSSH_9.9\r\n"),
        pieces(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n"),
        pieces(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n"),
        pieces(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ],
    ids=[
        "nothing",
        "half a head",
        "half a body",
        "no last chunk",
        "not HTTP",
        "no chunk",
        "head too long",
        "two lengths",
    ],
)
async def test_what_is_no_whole_response_may_have_run_and_ends_the_connection(answer: Answer) -> None:
    async with serving(answer) as server:
        with pytest.raises(Broken):
            await posts(server)
        await asyncio.wait_for(server.closed.wait(), 10)


async def test_where_nobody_listens_nothing_was_sent() -> None:
    async with serving(pieces(OK)) as server:
        url = server.url
    with pytest.raises(Unreachable):
        await Connections().post(url, b"{}", {}, whole)


async def test_a_cancelled_request_closes_its_connection() -> None:
    async with serving(pieces()) as server:
        asking = asyncio.create_task(posts(server))
        await asyncio.wait_for(server.asked.wait(), 10)
        asking.cancel()
        await asyncio.wait_for(server.closed.wait(), 10)
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_an_answer_that_is_too_long_is_not_read_to_its_end() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            writer.write(b" " * (1 << 20))
            await writer.drain()

    upstream = Upstream()
    async with serving(endless) as server:
        replica = Replica(server.url, "plain", "v1", Breaker(5, 10))
        with pytest.raises(Failed) as failed:
            await upstream.post(replica, b"{}", {}, within=60, emit=None)
        await asyncio.wait_for(server.closed.wait(), 10)
    await upstream.close()
    assert (failed.value.failure.outcome, failed.value.failure.reach) == (Outcome.UNAVAILABLE, Reach.UNKNOWN)
    assert f"{MAX_MESSAGE >> 20} MiB" in failed.value.failure.message
