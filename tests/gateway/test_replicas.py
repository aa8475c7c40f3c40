"""Several gateways before the same sandboxes: it does not matter which of them a request comes to."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from e2e.gateway.lab import Gateway, Lab, eventually, server
from e2e.gateway.sandboxes import Sandboxes, end, lease, shell
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from e2e.stored import raw_client


@pytest.fixture
def two(leasing: Gateway, replica: Gateway, pool: Sandboxes) -> tuple[Gateway, Gateway]:
    """Two gateways before the same sandboxes, all free."""
    return leasing, replica


def test_two_gateways_never_give_the_same_sandbox(pool: Sandboxes, two: tuple[Gateway, Gateway]) -> None:
    def take(number: int) -> list[str]:
        answer = two[number % 2].post("/sessions")
        return [answer.json()["sessions"][0]["id"]] if answer.status_code == 201 else []

    with ThreadPoolExecutor(8) as threads:
        given = [each for found in threads.map(take, range(8)) for each in found]
    assert len(set(given)) == len(given) == 4, "each sandbox once, and none was left over"
    assert pool.states() == ["armed"] * 4
    assert len({each.split("-")[1] for each in given}) == 4


def test_a_group_that_was_just_given_works_through_another_gateway_at_once(two: tuple[Gateway, Gateway]) -> None:
    one, other = two
    group = one.post("/sessions", {"count": 4}).json()["sessions"]

    def call(held: dict[str, str]) -> str:
        return shell(other, held, "echo here").strip()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(call, group)) == ["here"] * 4


def test_any_gateway_renews_resets_shows_and_ends_a_lease_that_another_gave(
    pool: Sandboxes, two: tuple[Gateway, Gateway]
) -> None:
    one, other = two
    held = lease(one, labels={"trajectory": "t-1"}, ttlSeconds=600)
    shown = other.get(f"/sessions/{held['id']}")
    assert shown.json()["labels"] == {"trajectory": "t-1"}, shown.text
    again = lease(one)
    assert {each["id"] for each in other.get("/sessions").json()["sessions"]} == {held["id"], again["id"]}
    assert other.post(f"/sessions/{held['id']}/reset").status_code == 200
    assert shell(one, held, "echo still mine").strip() == "still mine"
    third = lease(one)
    assert end(other, third) == 204
    assert sorted(pool.states()) == ["armed", "armed", "free", "free"]
    ended = one.call("shell", {"command": "ls"}, token=third["token"])
    assert ended.get("outcome") in {"denied", None}, "denied by the agent, or 401 where the gateway heard of it"


def test_a_lease_that_another_gateway_renewed_goes_on_everywhere(two: tuple[Gateway, Gateway]) -> None:
    one, other = two
    held = lease(one, ttlSeconds=6)
    assert other.post(f"/sessions/{held['id']}/renew", {"ttlSeconds": 600}).status_code == 200
    ending = lease(one, ttlSeconds=6)
    for gateway in two:
        eventually(
            "the other is over",
            lambda at=gateway: at.post("/call", {"name": "x"}, token=ending["token"]).status_code == 401,
        )
        assert shell(gateway, held, "echo on").strip() == "on"


def test_sandboxes_that_another_gateway_got_back_are_given_at_once(two: tuple[Gateway, Gateway]) -> None:
    one, other = two
    group = one.post("/sessions", {"count": 4}).json()["sessions"]
    assert other.post("/sessions").status_code == 429
    assert end(one, group[0]) == 204
    eventually("it is given", lambda: other.post("/sessions").status_code == 201, within=3)


def test_a_gateway_that_starts_again_finds_the_leases_in_the_pods(two: tuple[Gateway, Gateway]) -> None:
    one, _ = two
    held = lease(one, labels={"trajectory": "t-1"})
    shell(one, held, "touch a")
    one.stop()
    one.start()
    one.wait_ready()
    assert shell(one, held, "ls").strip() == "a"
    assert one.get(f"/sessions/{held['id']}").json()["labels"] == {"trajectory": "t-1"}


def test_a_token_that_is_no_leases_asks_no_pod(pool: Sandboxes, two: tuple[Gateway, Gateway]) -> None:
    one, _ = two
    held = lease(one)
    forged = held["id"] + ".forged"
    for wrong in ("s-0123456789ab-00.x", forged, "s-", "s"):
        assert one.post("/call", {"name": "shell"}, token=wrong).status_code == 401


def test_what_one_gateway_recorded_another_replays(own: Lab, s3: S3Server) -> None:
    bucket = f"recordings-{time.time_ns()}"
    raw_client(s3.endpoint).create_bucket(Bucket=bucket)
    env = {
        "PINNACE_S3_ENDPOINT": s3.endpoint, "PINNACE_S3_BUCKET": bucket, "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1",
    }  # fmt: skip
    servers = [server("plain", own.backend("plain", extra="search"))]
    one, other = (own.gateway({"servers": servers, "results": {"uri": f"s3://{bucket}"}}, **env) for _ in range(2))

    def call(gateway: Gateway, mode: str, query: str) -> dict[str, Any]:
        headers = {"X-Pinnace-Replay": mode, "X-Pinnace-Replay-Key": "run-1"}
        found: dict[str, Any] = gateway.post("/call", {"name": "search", "arguments": {"q": query}}, **headers).json()
        return found

    for query in ("cats", "dogs"):
        recorded = call(one, "record", query)
        one.post("/replay", {"mode": "off"})  # once it has answered, everything is in S3
        other.post("/replay", {"mode": "replay", "key": "run-1"})
        assert call(other, "replay", query)["content"] == recorded["content"]
    assert call(other, "replay", "birds")["outcome"] == "unavailable"


OLD = "2025-06-18"


class Client:
    """An MCP client of 2025-06-18 whose requests may go to any gateway."""

    def __init__(self, http: httpx.AsyncClient, gateway: Gateway) -> None:
        self.http, self.session = http, ""
        self.headers = {**gateway.headers, "Accept": "application/json, text/event-stream"}

    async def post(self, gateway: Gateway, message: dict[str, Any]) -> httpx.Response:
        answer = await self.http.post(gateway.mcp, json={"jsonrpc": "2.0", **message}, headers=self.headers)
        if "Mcp-Session-Id" in answer.headers:
            self.headers |= {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"], "MCP-Protocol-Version": OLD}
        return answer

    async def begin(self, gateway: Gateway) -> None:
        params = {
            "protocolVersion": OLD,
            "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "c", "version": "1"},
        }
        answer = await self.post(gateway, {"id": 0, "method": "initialize", "params": params})
        assert answer.status_code == 200, answer.text

    async def call(self, gateway: Gateway, name: str, arguments: dict[str, Any], messages: asyncio.Queue[Any]) -> None:
        """Puts every message of the answer's stream into `messages`."""
        body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
        async with self.http.stream("POST", gateway.mcp, json=body, headers=self.headers) as answer:
            if answer.headers["Content-Type"].startswith("application/json"):
                messages.put_nowait(json.loads(await answer.aread()))
            async for line in answer.aiter_lines():
                if line.startswith("data:") and line[5:].strip():
                    messages.put_nowait(json.loads(line[5:]))


@pytest.fixture
def peers(own: Lab) -> tuple[Gateway, Gateway]:
    """Two gateways of one ToolSandbox that know each other."""
    servers = [server("everything", own.everything()), server("plain", own.backend())]
    both = own.gateway({"servers": servers}), own.gateway({"servers": servers})
    for gateway, other in (both, both[::-1]):
        gateway.configure({"servers": servers, "generation": 2, "peers": [other.url]})
        gateway.wait_tools("test_elicitation", "sleep")
        eventually("in force", lambda at=gateway: at.metric("pinnace_tools_config_generation") == 2)
    return both


async def test_each_request_of_an_older_client_may_come_to_another_gateway(peers: tuple[Gateway, Gateway]) -> None:
    one, other = peers
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http, asyncio.timeout(120):
        client = Client(http, one)
        await client.begin(one)
        listed = await client.post(other, {"id": 1, "method": "tools/list"})
        assert "echo" in listed.text
        messages: asyncio.Queue[Any] = asyncio.Queue()

        asking = asyncio.create_task(client.call(other, "test_elicitation", {"message": "who?"}, messages))
        question = await messages.get()
        assert question["method"] == "elicitation/create", "the other gateway knows what the client can do"
        content = {"username": "ada", "email": "ada@example.com"}
        answered = await client.post(one, {"id": question["id"], "result": {"action": "accept", "content": content}})
        assert answered.status_code == 202
        assert "ada" in str((await messages.get())["result"])
        await asking

        sleeping = asyncio.create_task(client.call(one, "sleep", {"seconds": 600}, messages))
        await asyncio.to_thread(
            eventually, "it runs", lambda: one.metric("pinnace_tools_replica_in_flight", server="plain")
        )
        await client.post(other, {"method": "notifications/cancelled", "params": {"requestId": 7}})
        await sleeping

        ended = await http.delete(other.mcp, headers=client.headers)
        assert ended.status_code == 200
        assert (await client.post(one, {"id": 2, "method": "ping"})).status_code == 404
