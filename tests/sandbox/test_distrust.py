"""An agent in front of an executor that lies: whoever sits behind the socket, the agent stands and types it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pinnace.tools.executor import frames
from pinnace.tools.executor.frames import Message
from pinnace.tools.sandbox.app import Key, build
from pinnace.tools.sandbox.lease import Recycle, Slot
from pinnace.tools.sandbox.link import Link
from pinnace.tools.sandbox.pod import Pod
from pinnace.tools.sandbox.toolset import GROUPS

Answers = Callable[[Message], bytes | Message]


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[tuple[TestClient[Any, Any], Pod, Path]]:
    """The real agent, in this process; its socket waits for an executor."""
    key, socket = tmp_path / "key", tmp_path / "executor.sock"
    key.write_text("key")
    link = Link(socket, uid=os.getuid(), on_change=lambda connected: pod.executor_changed(connected))  # noqa: PLW0108
    pod = Pod(link, Slot(), recycle=Recycle.RESTART)
    app = build(pod, Key(key), groups=frozenset(GROUPS), workspace_bytes=1 << 20)
    async with TestClient(TestServer(app), headers={"X-Pinnace-Key": "key"}) as client:
        yield client, pod, socket


async def _until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - a file and another task's state give no event
            await asyncio.sleep(0.005)


async def _closed(reader: asyncio.StreamReader) -> bool:
    """Without a word, or with a reset where our hello was not even read."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


@asynccontextmanager
async def _executor(socket: Path, answers: Answers, hello: bytes | None = None) -> AsyncIterator[asyncio.StreamReader]:
    """Somebody who speaks to the agent as an executor would, but answers as it likes."""
    await _until(socket.exists)
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(frames.encode({"hello": 1, "isolation": "container"}) if hello is None else hello)

    async def serve() -> None:
        decoder = frames.Decoder()
        while data := await reader.read(1 << 16):
            for request in decoder.feed(data):
                if request["op"] in {"arm", "clean"}:
                    writer.write(frames.encode({"id": request["id"]}))
                    continue
                answer = answers(request)
                writer.write(answer if isinstance(answer, bytes) else frames.encode({"id": request["id"]} | answer))

    task = asyncio.create_task(serve())
    try:
        yield reader
    finally:
        task.cancel()
        writer.close()


async def _arm(client: TestClient[Any, Any], pod: Pod) -> None:
    await _until(lambda: pod.slot.state == "free")
    body = {"id": "lease", "tokenSha256": hashlib.sha256(b"").hexdigest(), "expiresAt": time.time() + 60}
    async with client.post("/lease", json=body) as response:
        assert response.status == 200, await response.text()


async def _call(client: TestClient[Any, Any], name: str, **arguments: Any) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    async with client.post("/mcp", json=message, headers={"X-Pinnace-Session": "lease"}) as response:
        assert response.status == 200
        result: dict[str, Any] = (await response.json())["result"]
        return result


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"stdout": [1], "stderr": None, "error": "text"},
        {"stdout": "", "stderr": "", "error": {"type": 1}},
        {"stdout": "", "stderr": "", "images": [{"mimeType": "image/png"}]},
        {"stdout": "", "stderr": "", "images": 5},
        {"stdout": "", "stderr": "", "ended": "nobody knows", "status": "x"},
    ],
)
async def test_an_answer_of_the_wrong_shape_is_a_typed_result(
    agent: tuple[TestClient[Any, Any], Pod, Path], reply: Message
) -> None:
    client, pod, socket = agent
    async with _executor(socket, lambda _: reply):
        await _arm(client, pod)
        result = await _call(client, "python", code="1")
        assert result["_meta"]["pinnace.dev/outcome"] == "tool_error"
        assert (await client.get("/healthz")).status == 200


async def test_text_without_end_is_cut_again(agent: tuple[TestClient[Any, Any], Pod, Path]) -> None:
    client, pod, socket = agent
    async with _executor(socket, lambda _: {"stdout": "x" * 8_000_000, "stderr": "y" * 4_000_000}):
        await _arm(client, pod)
        result = await _call(client, "python", code="1")
        assert len(result["content"][0]["text"]) < 600_000
        assert "left out" in result["content"][0]["text"]


@pytest.mark.parametrize("broken", [b"\xff\xff\xff\xff", b"\0\0\0\4null", b"\0\0\0\5abcde", b"\0\0\0\4[[[["])
async def test_a_broken_frame_ends_the_connection_and_makes_the_call_unavailable(
    agent: tuple[TestClient[Any, Any], Pod, Path], broken: bytes
) -> None:
    client, pod, socket = agent
    async with _executor(socket, lambda _: broken):
        await _arm(client, pod)
        result = await _call(client, "python", code="1")
        assert result["_meta"]["pinnace.dev/outcome"] == "unavailable"
        again = await _call(client, "shell", command="true")
        assert again["_meta"]["pinnace.dev/outcome"] == "unavailable"
        assert "reset" in again["content"][0]["text"]


async def test_a_wrong_hello_never_makes_the_pod_free(agent: tuple[TestClient[Any, Any], Pod, Path]) -> None:
    _, pod, socket = agent
    async with _executor(socket, lambda _: {}, hello=frames.encode({"hello": 2})) as reader:
        assert await _closed(reader)
        assert pod.slot.state == "starting"


async def test_while_an_executor_is_connected_nobody_else_gets_in(
    agent: tuple[TestClient[Any, Any], Pod, Path],
) -> None:
    client, pod, socket = agent
    async with _executor(socket, lambda _: {"stdout": "the first", "stderr": ""}):
        await _arm(client, pod)
        async with _executor(socket, lambda _: {"stdout": "the second", "stderr": ""}) as refused:
            assert await _closed(refused)
            assert (await _call(client, "python", code="1"))["content"][0]["text"] == "the first"


async def test_an_answer_to_another_request_answers_nothing(agent: tuple[TestClient[Any, Any], Pod, Path]) -> None:
    client, pod, socket = agent

    def answers(request: Message) -> bytes:
        stray = frames.encode({"id": request["id"] + 7, "stdout": "stray", "stderr": ""})
        return stray + frames.encode({"id": request["id"], "stdout": "mine", "stderr": ""})

    async with _executor(socket, answers):
        await _arm(client, pod)
        assert (await _call(client, "python", code="1"))["content"][0]["text"] == "mine"


async def test_another_uid_is_not_the_executor(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    changes: list[bool] = []
    link = Link(socket, uid=os.getuid() + 1, on_change=changes.append)
    task = asyncio.create_task(link.serve())
    async with _executor(socket, lambda _: {}) as reader:
        assert await _closed(reader)
    task.cancel()
    assert changes == []
