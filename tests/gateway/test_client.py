"""The agent's own client: every end of a call is a result."""

from __future__ import annotations

import time

import pytest
from pinnace.tools.client import GatewayRefused, ToolClient
from pinnace.tools.outcome import Outcome

from e2e.apiserver import free_port
from e2e.gateway.lab import Gateway, Lab, eventually, server
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from e2e.stored import raw_client


async def test_calls_end_in_typed_results_whatever_happens(gateway: Gateway) -> None:
    async with ToolClient(gateway.url, token=gateway.token) as tools:
        assert {"echo", "add"} <= {each["function"]["name"] for each in await tools.tools()}
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


async def test_a_session_is_leased_for_a_block_and_given_back(own: Lab) -> None:
    agents = own.agents(1)
    gateway = own.gateway({"sessions": {"endpoints": agents.urls, "servers": ["files"]}})
    gateway.wait_tools("write_file")
    async with ToolClient(gateway.url, token=gateway.token) as tools:
        async with tools.session(env={"SEED": "7"}, patience=10) as sandbox:
            assert (await sandbox.call("get_env", {"name": "SEED"})).text == "7"
            await sandbox.call("write_file", {"name": "a", "text": "x"})
            await sandbox.reset()
            assert (await sandbox.call("read_file", {"name": "a"})).outcome is Outcome.TOOL_ERROR
            with pytest.raises(GatewayRefused) as refused:
                await tools.lease(1)
            assert refused.value.status == 429
        eventually("it is free", lambda: agents.states() == ["free"])
        assert (await sandbox.call("read_file", {"name": "a"})).outcome is Outcome.DENIED


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
