"""Each trajectory has its sandbox: given all at once or not at all, by any gateway, and never to two."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from e2e.gateway.lab import Agents, Gateway, Lab, eventually
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from e2e.stored import raw_client


def configuration(agents: Agents, **sessions: Any) -> dict[str, Any]:
    return {"sessions": {"endpoints": agents.urls, "servers": ["files"], **sessions}}


def ready(gateway: Gateway, free: int) -> Gateway:
    gateway.wait_tools("write_file")
    eventually(f"{free} are free", lambda: gateway.metric("pinnace_tools_sessions", state="free") == free)
    return gateway


def lease(gateway: Gateway, **more: Any) -> dict[str, str]:
    answer = gateway.post("/sessions", more)
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json()["sessions"][0]
    return found


def text(answer: Any) -> str:
    return str(answer["content"][0]["text"])


def test_a_trajectory_has_files_and_environment_that_no_other_sees(own: Lab) -> None:
    gateway = ready(own.gateway(configuration(own.agents(2))), 2)
    first, second = lease(gateway, env={"SECRET": "one"}), lease(gateway, env={"SECRET": "two"})
    gateway.call("write_file", {"name": "a", "text": "mine"}, token=first["token"])
    assert text(gateway.call("read_file", {"name": "a"}, token=first["token"])) == "mine"
    assert gateway.call("read_file", {"name": "a"}, token=second["token"])["outcome"] == "tool_error"
    assert text(gateway.call("get_env", {"name": "SECRET"}, token=second["token"])) == "two"


def test_a_session_tool_without_a_lease_is_denied_with_the_remedy(own: Lab) -> None:
    gateway = ready(own.gateway(configuration(own.agents(1))), 1)
    answer = gateway.call("read_file", {"name": "a"})
    assert answer["outcome"] == "denied"
    assert "POST /sessions" in answer["error"]["message"]


def test_a_group_gets_all_its_sandboxes_or_none(own: Lab) -> None:
    agents = own.agents(4)
    gateway = ready(own.gateway(configuration(agents)), 4)
    refused = gateway.post("/sessions", {"count": 5})
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert agents.states() == ["free"] * 4
    given = gateway.post("/sessions", {"count": 4}).json()["sessions"]
    assert len({each["token"] for each in given}) == 4
    assert agents.states() == ["armed"] * 4


def test_a_group_is_rolled_back_when_one_pod_fails(own: Lab) -> None:
    well, dying = own.agents(2), own.agents(1)
    gateway = ready(own.gateway({"sessions": {"endpoints": [*well.urls, *dying.urls], "servers": ["files"]}}), 3)
    dying.stop()
    answer = gateway.post("/sessions", {"count": 3})
    assert answer.status_code in {429, 503}
    eventually("what was armed is free again", lambda: well.states() == ["free", "free"])


def test_two_gateways_never_give_the_same_sandbox(own: Lab) -> None:
    agents = own.agents(12)
    one, two = (own.gateway(configuration(agents)) for _ in range(2))
    ready(one, 12), ready(two, 12)

    def take(number: int) -> int:
        return (one if number % 2 else two).post("/sessions", {"count": 1}).status_code

    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(take, range(16)))
    assert codes.count(201) <= 12
    assert agents.states().count("armed") == codes.count(201)
    assert codes.count(201) >= 10


def test_a_lease_works_through_another_gateway_and_after_a_restart(own: Lab) -> None:
    agents = own.agents(2)
    one, two = (own.gateway(configuration(agents)) for _ in range(2))
    ready(one, 2), ready(two, 2)
    mine = lease(one, labels={"trajectory": "t-1"})
    assert two.call("write_file", {"name": "a", "text": "x"}, token=mine["token"])["outcome"] == "ok"
    one.stop()
    one.start()
    ready(one, 1)
    assert text(one.call("read_file", {"name": "a"}, token=mine["token"])) == "x"
    assert one.get(f"/sessions/{mine['id']}").json()["labels"] == {"trajectory": "t-1"}


def test_a_lease_that_ended_is_no_key_any_more_and_its_sandbox_is_empty(own: Lab) -> None:
    agents = own.agents(1)
    gateway = ready(own.gateway(configuration(agents)), 1)
    mine = lease(gateway)
    gateway.call("write_file", {"name": "a", "text": "x"}, token=mine["token"])
    ended = httpx.delete(f"{gateway.url}/sessions/{mine['id']}", headers=gateway.headers, trust_env=False)
    assert ended.status_code == 204
    assert gateway.post("/call", {"name": "read_file"}, token=mine["token"]).status_code == 401
    again = lease(ready(gateway, 1))
    assert gateway.call("read_file", {"name": "a"}, token=again["token"])["outcome"] == "tool_error"


def test_a_lease_ends_by_its_time_and_may_be_renewed(own: Lab) -> None:
    agents = own.agents(2)
    gateway = ready(own.gateway(configuration(agents)), 2)
    short, kept = lease(gateway, ttlSeconds=2), lease(gateway, ttlSeconds=2)
    renewed = gateway.post(f"/sessions/{kept['id']}/renew", {"ttlSeconds": 600})
    assert renewed.status_code == 200, renewed.text
    eventually("it is over", lambda: gateway.post("/call", {"name": "x"}, token=short["token"]).status_code == 401)
    eventually("its pod is free", lambda: sorted(agents.states()) == ["armed", "free"])
    assert gateway.post("/call", {"name": "x"}, token=kept["token"]).status_code == 200


def test_reset_empties_the_workspace_of_the_same_lease(own: Lab) -> None:
    gateway = ready(own.gateway(configuration(own.agents(1))), 1)
    mine = lease(gateway)
    gateway.call("write_file", {"name": "a", "text": "x"}, token=mine["token"])
    assert gateway.post(f"/sessions/{mine['id']}/reset", token=mine["token"]).status_code == 200
    assert gateway.call("read_file", {"name": "a"}, token=mine["token"])["outcome"] == "tool_error"


@pytest.mark.parametrize(("recycle", "state"), [("Delete", "spent"), ("Restart", "free"), ("Noop", "free")])
def test_a_sandbox_is_recycled_as_configured(own: Lab, recycle: str, state: str) -> None:
    agents = own.agents(1)
    gateway = ready(own.gateway(configuration(agents, recycle=recycle)), 1)
    mine = lease(gateway)
    httpx.delete(f"{gateway.url}/sessions/{mine['id']}", headers=gateway.headers, trust_env=False)
    assert agents.states() == [state]


def test_a_tenants_leases_are_no_others_business(own: Lab) -> None:
    gateway = ready(own.gateway(configuration(own.agents(2))), 2)
    (own.folder / "tokens" / "others").write_text("others-token")
    mine, neighbour = lease(gateway), lease(gateway)
    path = f"/sessions/{mine['id']}"
    body = {"name": "x"}
    eventually("known", lambda: gateway.post("/call", body, token="others-token").status_code == 200)
    stranger = {"Authorization": "Bearer others-token"}
    assert httpx.get(gateway.url + path, headers=stranger, trust_env=False).status_code == 404
    by_lease = {"Authorization": f"Bearer {neighbour['token']}"}
    assert httpx.get(gateway.url + path, headers=by_lease, trust_env=False).status_code == 404
    assert httpx.post(f"{gateway.url}/sessions", json={}, headers=by_lease, trust_env=False).status_code == 403


def test_a_snapshot_of_the_workspace_lies_in_s3(own: Lab, s3: S3Server) -> None:
    import io
    import tarfile

    bucket = f"snapshots-{time.time_ns()}"
    raw = raw_client(s3.endpoint)
    raw.create_bucket(Bucket=bucket)
    env = {
        "PINNACE_S3_ENDPOINT": s3.endpoint, "PINNACE_S3_BUCKET": bucket, "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1",
    }  # fmt: skip
    config = {**configuration(own.agents(1)), "results": {"uri": f"s3://{bucket}/tools"}}
    gateway = ready(own.gateway(config, **env), 1)
    mine = lease(gateway)
    gateway.call("write_file", {"name": "a.txt", "text": "kept"}, token=mine["token"])
    answer = gateway.post(f"/sessions/{mine['id']}/snapshot")
    assert answer.status_code == 200, answer.text
    key = answer.json()["uri"].removeprefix(f"s3://{bucket}/")
    content = raw.get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert tar.extractfile("a.txt").read() == b"kept"  # type: ignore[union-attr]  # it is a regular file
