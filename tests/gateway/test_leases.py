"""Each trajectory has its sandbox: given all at once or not at all, in force, and empty for the next."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from e2e.gateway import sandboxes
from e2e.gateway.lab import Gateway, Lab, eventually
from e2e.gateway.sandboxes import Sandboxes, configuration, end, files, lease, ready, shell
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from e2e.stored import raw_client


def test_a_trajectory_has_files_processes_and_environment_that_no_other_sees(leasing: Gateway, pool: Sandboxes) -> None:
    first, second = lease(leasing, env={"SECRET": "one"}), lease(leasing, env={"SECRET": "two"})
    written = leasing.call("write_file", {"path": "a", "content": "mine"}, token=first["token"])
    assert written["outcome"] == "ok", written
    leasing.call("python", {"code": "x = 41"}, token=first["token"])
    assert shell(leasing, first, "cat a; echo; echo $SECRET").split() == ["mine", "one"]
    assert "42" in str(leasing.call("python", {"code": "x + 1"}, token=first["token"])["content"])
    assert leasing.call("read_file", {"path": "a"}, token=second["token"])["outcome"] == "tool_error"
    assert leasing.call("python", {"code": "x"}, token=second["token"])["outcome"] == "tool_error"
    assert shell(leasing, second, "echo $SECRET").strip() == "two"


def test_a_session_tool_without_a_lease_is_denied_with_the_remedy(leasing: Gateway, pool: Sandboxes) -> None:
    answer = leasing.call("read_file", {"path": "a"})
    assert answer["outcome"] == "denied"
    assert "POST /sessions" in answer["error"]["message"]


def test_a_group_gets_all_its_sandboxes_or_none(leasing: Gateway, pool: Sandboxes) -> None:
    refused = leasing.post("/sessions", {"count": 5})
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert pool.states() == ["free"] * 4
    given = leasing.post("/sessions", {"count": 4}).json()["sessions"]
    assert len({each["token"] for each in given}) == 4
    assert pool.states() == ["armed"] * 4


def test_a_lease_is_given_only_with_its_limits_in_force(leasing: Gateway, pool: Sandboxes) -> None:
    wrong = leasing.post("/sessions", {"limits": {"openFiles": 1}})
    assert (wrong.status_code, "limits.openFiles" in wrong.text) == (400, True), wrong.text
    assert pool.states() == ["free"] * 4
    held = lease(leasing, limits={"openFiles": 300})
    assert shell(leasing, held, "ulimit -n").strip() == "300"


def test_a_group_is_rolled_back_when_one_pod_fails(own: Lab, pool: Sandboxes) -> None:
    well, dying = pool[:2], sandboxes.start(own, 1)
    sessions = {"endpoints": [*well.urls, *dying.urls], "servers": ["files"]}
    gateway = ready(own.gateway({"sessions": sessions, "limits": {"maxQueueSeconds": 1}}), 3)
    dying.pods[0].agent.stop()
    answer = gateway.post("/sessions", {"count": 3})
    assert answer.status_code in {429, 503}
    eventually("what was armed is free again", lambda: well.states() == ["free", "free"])


def test_calls_of_a_lease_whose_sandbox_ended_are_unavailable_until_a_reset(own: Lab) -> None:
    pool = sandboxes.start(own, 1)
    gateway = ready(own.gateway(configuration(pool)), 1)
    held = lease(gateway)
    pool.pods[0].executor.stop()
    answer = gateway.call("shell", {"command": "ls"}, token=held["token"])
    assert (answer["outcome"], "reset the session" in str(answer)) == ("unavailable", True), answer


def test_a_call_in_a_sandbox_that_falls_silent_ends_soon_and_does_not_run_again(own: Lab) -> None:
    pool = sandboxes.start(own, 1)
    gateway = ready(own.gateway(configuration(pool)), 1)
    held = lease(gateway)
    assert shell(gateway, held, "echo here").strip() == "here"
    command = {"command": "sleep 3600"}
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(gateway.call, "shell", command, token=held["token"], timeoutSeconds=100)
        eventually("it runs", lambda: gateway.metric("pinnace_tools_in_flight") == 1)
        pool.pods[0].agent.send(signal.SIGSTOP)
        answer = call.result(timeout=60)
    assert answer["outcome"] == "unavailable", answer
    assert "sandbox is gone" in answer["error"]["message"]
    assert answer["meta"]["attempts"] == 1
    pool.pods[0].agent.send(signal.SIGCONT)
    assert shell(gateway, held, "echo back").strip() == "back"


def test_a_lease_waits_for_a_sandbox_no_longer_than_for_a_server(own: Lab) -> None:
    gateway = own.gateway({"sessions": {"max": 1}, "limits": {"maxQueueSeconds": 0.3}})
    refused = gateway.post("/sessions")
    assert (refused.status_code, "raise spec.sessions.warm" in refused.text) == (429, True), refused.text
    assert int(refused.headers["Retry-After"]) >= 1


def test_a_gateway_that_is_told_to_go_lets_no_lease_wait(own: Lab) -> None:
    gateway = own.gateway({"sessions": {"max": 1}, "limits": {"maxQueueSeconds": 600}})
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(gateway.post, "/sessions")
        eventually("it waits", lambda: gateway.metric("pinnace_tools_leases_waiting") == 1)
        gateway.send(signal.SIGTERM)
        assert asked.result().status_code == 429, "another gateway may be asked"


def test_a_lease_that_ended_is_no_key_any_more_and_its_sandbox_is_empty(leasing: Gateway, pool: Sandboxes) -> None:
    mine = lease(leasing)
    shell(leasing, mine, "touch a")
    assert end(leasing, mine) == 204
    assert leasing.post("/call", {"name": "read_file"}, token=mine["token"]).status_code == 401
    group = leasing.post("/sessions", {"count": 4}).json()["sessions"]
    assert [files(leasing, each).split() for each in group] == [["."]] * 4


def test_a_lease_ends_by_its_time_and_may_be_renewed(leasing: Gateway, pool: Sandboxes) -> None:
    short, kept = lease(leasing, ttlSeconds=6), lease(leasing, ttlSeconds=6)
    renewed = leasing.post(f"/sessions/{kept['id']}/renew", {"ttlSeconds": 600})
    assert renewed.status_code == 200, renewed.text
    eventually("it is over", lambda: leasing.post("/call", {"name": "x"}, token=short["token"]).status_code == 401)
    eventually("its pod is free", lambda: pool.states().count("armed") == 1)
    assert leasing.post("/call", {"name": "x"}, token=kept["token"]).status_code == 200


def test_reset_empties_the_workspace_of_the_same_lease(leasing: Gateway, pool: Sandboxes) -> None:
    mine = lease(leasing, env={"SEED": "7"})
    shell(leasing, mine, "touch a; sleep 300 &")
    assert leasing.post(f"/sessions/{mine['id']}/reset", token=mine["token"]).status_code == 200
    assert files(leasing, mine).split() == ["."]
    assert shell(leasing, mine, "echo $SEED; jobs").split() == ["7"]


def test_with_noop_the_next_lease_finds_the_files(own: Lab, pool: Sandboxes) -> None:
    gateway = ready(own.gateway(configuration(pool[:1], recycle="Noop")), 1)
    mine = lease(gateway)
    shell(gateway, mine, "touch a")
    end(gateway, mine)
    assert files(gateway, lease(gateway)).split() == ["a", "."]


def test_a_sandbox_that_is_to_be_deleted_is_given_to_nobody_again(own: Lab) -> None:
    pool = sandboxes.start(own, 1)
    config = {**configuration(pool, recycle="Delete"), "limits": {"maxQueueSeconds": 1}}
    gateway = ready(own.gateway(config), 1)
    mine = lease(gateway)
    end(gateway, mine)
    assert pool.states() == ["spent"]
    assert gateway.post("/sessions").status_code == 429


def test_a_tenants_leases_are_no_others_business(shared: Lab, leasing: Gateway, pool: Sandboxes) -> None:
    (shared.folder / "tokens" / "others").write_text("others-token")
    mine, neighbour = lease(leasing), lease(leasing)
    path = f"/sessions/{mine['id']}"
    body = {"name": "x"}
    eventually("known", lambda: leasing.post("/call", body, token="others-token").status_code == 200)
    stranger = {"Authorization": "Bearer others-token"}
    assert httpx.get(leasing.url + path, headers=stranger, trust_env=False).status_code == 404
    by_lease = {"Authorization": f"Bearer {neighbour['token']}"}
    assert httpx.get(leasing.url + path, headers=by_lease, trust_env=False).status_code == 404
    assert httpx.post(f"{leasing.url}/sessions", json={}, headers=by_lease, trust_env=False).status_code == 403


def test_a_snapshot_of_the_workspace_lies_in_s3(own: Lab, pool: Sandboxes, s3: S3Server) -> None:
    import io
    import tarfile

    bucket = f"snapshots-{time.time_ns()}"
    raw = raw_client(s3.endpoint)
    raw.create_bucket(Bucket=bucket)
    env = {
        "PINNACE_S3_ENDPOINT": s3.endpoint, "PINNACE_S3_BUCKET": bucket, "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1",
    }  # fmt: skip
    config = {**configuration(pool[:1]), "results": {"uri": f"s3://{bucket}/tools"}}
    gateway = ready(own.gateway(config, **env), 1)
    mine = lease(gateway)
    shell(gateway, mine, "printf kept > a.txt")
    answer = gateway.post(f"/sessions/{mine['id']}/snapshot")
    assert answer.status_code == 200, answer.text
    key = answer.json()["uri"].removeprefix(f"s3://{bucket}/")
    content = raw.get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert tar.extractfile("a.txt").read() == b"kept"  # type: ignore[union-attr]  # it is a regular file
