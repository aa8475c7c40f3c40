"""The agent's own client: every end of a call is a result."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import suppress

import pytest
from pinnace.tools.client import GatewayRefused, ToolClient
from pinnace.tools.outcome import Outcome

from e2e.apiserver import free_port
from e2e.gateway.lab import Gateway, Lab, eventually, server
from e2e.gateway.sandboxes import Sandboxes
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from e2e.stored import raw_client


async def test_calls_end_in_typed_results_whatever_happens(gateway: Gateway) -> None:
    async with ToolClient(gateway.url, token=gateway.token) as tools:
        assert {"echo", "add"} <= {each["function"]["name"] for each in await tools.tools()}
        assert (await tools.listing())["inSessions"] == []
        good = await tools.call("add", {"a": 1, "b": 2})
        assert (good.outcome, good.structured, good.ok) == (Outcome.OK, {"sum": 3}, True)
        wrong = await tools.call("add", {"a": "x", "b": 2})
        assert (wrong.outcome, wrong.error and wrong.error.path) == (Outcome.INVALID_ARGUMENTS, "$.a")
        assert (await tools.call("fail", {"message": "no"})).outcome is Outcome.TOOL_ERROR
        assert (await tools.call("sleep", {"seconds": 9}, timeout_seconds=0.2)).outcome is Outcome.TIMEOUT
    async with ToolClient(gateway.url, token="wrong") as stranger:
        assert (await stranger.call("echo", {"text": "x"})).outcome is Outcome.DENIED
    async with ToolClient(f"http://127.0.0.1:{free_port()}") as nowhere:
        lost = await nowhere.call("echo", {"text": "x"})
        assert (lost.outcome, lost.outcome.infrastructure) == (Outcome.UNAVAILABLE, True)


async def test_a_session_is_leased_for_a_block_and_given_back(leasing: Gateway, pool: Sandboxes) -> None:
    async with ToolClient(leasing.url, token=leasing.token) as tools:
        async with tools.session(env={"SEED": "7"}, patience=10) as sandbox:
            assert (await sandbox.call("shell", {"command": "echo $SEED; touch a"})).text.strip() == "7"
            await sandbox.reset()
            assert (await sandbox.call("read_file", {"path": "a"})).outcome is Outcome.TOOL_ERROR
            with pytest.raises(GatewayRefused) as refused:
                await tools.lease(4)
            assert refused.value.status == 429
        eventually("it is free", lambda: pool.states() == ["free"] * 4)
        assert (await sandbox.call("read_file", {"path": "a"})).outcome is Outcome.DENIED


async def test_a_lease_whose_request_is_cancelled_stays_with_nobody(leasing: Gateway, pool: Sandboxes) -> None:
    """Also when the gateway has given it already, and the answer is on its way."""
    async with ToolClient(leasing.url, token=leasing.token) as tools:
        for step in range(20):
            asking = asyncio.create_task(tools.lease(1, patience=30))
            await asyncio.sleep(step / 2000)
            time.sleep(0.05)  # noqa: ASYNC251 - what the gateway answers meanwhile is not read
            asking.cancel()
            with suppress(asyncio.CancelledError):
                for each in await asking:
                    await each.end()
    await asyncio.to_thread(eventually, "all are free", lambda: pool.states() == ["free"] * 4)


async def test_a_group_of_attempts_has_a_sandbox_each_with_its_attachment(leasing: Gateway, pool: Sandboxes) -> None:
    attachment = bytes(range(256)) * 20_000  # in three parts
    async with ToolClient(leasing.url, token=leasing.token) as tools:
        group = await tools.lease(3, limits={"openFiles": 300}, labels={"question": "q-7"}, patience=30)
        done = await asyncio.gather(*(each.upload("in/data.bin", attachment) for each in group))
        assert [each.outcome for each in done] == [Outcome.OK] * 3
        told = await asyncio.gather(*(each.call("shell", {"command": "sha256sum < in/data.bin"}) for each in group))
        assert {each.text.split()[0] for each in told} == {hashlib.sha256(attachment).hexdigest()}
        assert (await group[0].upload("../out", b"x")).outcome is Outcome.DENIED
        assert (await group[0].upload("empty", b"")).outcome is Outcome.OK
        await group[0].reset()
        assert (await group[0].call("shell", {"command": "ls; ulimit -n"})).text.split() == ["300"]
        assert (
            await group[1].call("python", {"code": "while True: pass"}, timeout_seconds=1)
        ).outcome is Outcome.TIMEOUT
        await asyncio.gather(*(each.end() for each in group))
        await group[0].end()
    eventually("all are free", lambda: pool.states() == ["free"] * 4)


async def test_whoever_waits_gets_the_sandbox_that_another_gives_back(leasing: Gateway, pool: Sandboxes) -> None:
    async with ToolClient(leasing.url, token=leasing.token) as tools:
        first = await tools.lease(4, patience=30)
        waiting = asyncio.create_task(tools.lease(2, patience=60))
        with pytest.raises(GatewayRefused, match="are free") as refused:
            await tools.lease(1)
        assert refused.value.retry_after
        await asyncio.gather(*(each.end() for each in first))
        assert len(await waiting) == 2


async def test_leases_of_a_client_that_crashed_are_found_by_their_labels_and_ended(
    leasing: Gateway, pool: Sandboxes
) -> None:
    async with ToolClient(leasing.url, token=leasing.token) as crashed:
        await crashed.lease(2, labels={"run": "r-1"}, ttl_seconds=600)
        await crashed.lease(1, labels={"run": "r-2"})
    async with ToolClient(leasing.url, token=leasing.token) as tools:
        lost = [each for each in await tools.leases() if each.labels == {"run": "r-1"}]
        assert len({each.id for each in lost}) == 2
        for each in lost:
            await tools.release(each.id)
            await tools.release(each.id)
        assert [each.labels["run"] for each in await tools.leases()] == ["r-2"]
    async with ToolClient(leasing.url, token="wrong") as stranger:
        with pytest.raises(GatewayRefused) as refused:
            await stranger.release(lost[0].id)
    assert refused.value.status == 401
    eventually("they are free", lambda: pool.states().count("free") == 3)


async def test_limits_that_can_not_be_are_refused_with_their_place(leasing: Gateway, pool: Sandboxes) -> None:
    async with ToolClient(leasing.url, token=leasing.token) as tools:
        with pytest.raises(GatewayRefused, match=r"limits\.memoryMiB") as refused:
            await tools.lease(1, limits={"memoryMiB": 1})
    assert refused.value.status == 400


def test_a_result_that_is_too_long_is_cut_and_the_whole_lies_in_s3(own: Lab, s3: S3Server) -> None:
    bucket = f"results-{time.time_ns()}"
    raw = raw_client(s3.endpoint)
    raw.create_bucket(Bucket=bucket)
    env = {
        "PINNACE_S3_ENDPOINT": s3.endpoint, "PINNACE_S3_BUCKET": bucket, "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1",
    }  # fmt: skip
    config = {"servers": [server("plain", own.backend())], "limits": {"resultBytes": 2000}}
    gateway = own.gateway({**config, "results": {"uri": f"s3://{bucket}/tools"}}, **env)
    answer = gateway.call("big", {"size": 50_000})
    assert answer["outcome"] == "ok"
    assert len(str(answer)) < 4000
    (link,) = [each for each in answer["content"] if each["type"] == "resource_link"]
    content = raw.get_object(Bucket=bucket, Key=link["uri"].removeprefix(f"s3://{bucket}/"))["Body"].read()
    assert b"x" * 50_000 in content


def test_a_result_that_is_too_long_says_so_when_there_is_nowhere_to_store_it(own: Lab) -> None:
    gateway = own.gateway({"servers": [server("plain", own.backend())], "limits": {"resultBytes": 2000}})
    answer = gateway.call("big", {"size": 50_000})
    assert answer["outcome"] == "ok"
    assert "results.uri" in answer["content"][-1]["text"]
