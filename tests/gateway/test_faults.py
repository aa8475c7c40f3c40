"""Replicas die, hang, lie: what is safe is repeated elsewhere, what is not runs at most once; every end is typed."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from e2e.gateway.faulty import Fault, faulty
from e2e.gateway.lab import Gateway, Lab, Process, eventually, server
from e2e.gateway.vanishing import Vanishing


def in_parallel(call: Callable[[int], Any], count: int, threads: int = 8) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, range(count)))


def outcomes(answers: list[Any]) -> Counter[str]:
    return Counter(answer["outcome"] for answer in answers)


def test_no_safe_call_is_lost_when_a_replica_is_killed(own: Lab) -> None:
    first, second = own.backend("first"), own.backend("second")
    gateway = own.gateway({"servers": [server("plain", first, second)]})

    def call(number: int) -> Any:
        if number == 50:
            first.send(signal.SIGKILL)
        return gateway.call("echo", {"text": str(number)})

    answers = in_parallel(call, 200)
    assert outcomes(answers) == {"ok": 200}
    assert [answer["content"][0]["text"] for answer in answers] == [str(number) for number in range(200)]


def test_a_safe_call_leaves_a_hung_replica(own: Lab) -> None:
    first, second = own.backend("first"), own.backend("second")
    gateway = own.gateway({"servers": [server("plain", first, second)]})
    in_parallel(lambda _: gateway.call("who"), 10)
    first.send(signal.SIGSTOP)
    answers = in_parallel(lambda _: gateway.call("who"), 40)
    assert outcomes(answers) == {"ok": 40}
    assert {answer["content"][0]["text"] for answer in answers} == {"second"}
    first.send(signal.SIGCONT)
    eventually("it is back", lambda: gateway.call("who")["content"][0]["text"] == "first")


def test_a_safe_call_leaves_a_replica_that_vanished_and_was_taken_away(own: Lab) -> None:
    first, second = own.backend("first"), own.backend("second")
    gateway = own.gateway({"servers": [server("plain", first)]})
    gateway.wait_tools("echo")
    first.send(signal.SIGSTOP)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(gateway.call, "who") for _ in range(4)]
        eventually("they are on their way", lambda: gateway.metric("pinnace_tools_in_flight") == 4)
        gateway.configure({"generation": 2, "servers": [server("plain", second)]})
        # Unmoved they would end with `timeout`.
        answers = [call.result(timeout=60) for call in calls]
    assert outcomes(answers) == {"ok": 4}


def test_a_safe_call_leaves_a_host_that_vanished_from_under_it(own: Lab) -> None:
    first, second = own.backend("first"), own.backend("second")
    with closing(Vanishing(first)) as host:
        gateway = own.gateway({"servers": [server("plain", host)]})
        gateway.wait_tools("sleep")
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(gateway.call, "sleep", {"seconds": 1}) for _ in range(4)]
            eventually("they run", lambda: len(first.ran("sleep")) == 4)
            host.vanish()
            began = time.monotonic()
            gateway.configure({"generation": 2, "servers": [server("plain", second)]})
            answers = [call.result(timeout=60) for call in calls]
        print(f"\ncalls on a host that vanished were answered by another after {time.monotonic() - began - 1:.2f} s")
    assert outcomes(answers) == {"ok": 4}


def test_even_an_unsafe_call_leaves_a_host_that_takes_no_connection_and_no_other_call_tries_it(own: Lab) -> None:
    healthy, other = own.backend("healthy"), own.backend("other")
    gateway = own.gateway({"servers": [server("plain", healthy)]})
    gateway.wait_tools("pay")
    with closing(Vanishing(other)) as host:
        host.vanish()
        gateway.configure({"generation": 2, "servers": [server("plain", healthy, host)]})
        eventually("it is in force", lambda: gateway.metric("pinnace_tools_config_generation") == 2)
        began = time.monotonic()
        answers = [gateway.call("pay", {"amount": number}) for number in range(20)]
        print(f"\n20 calls beside a host that takes no connection: {time.monotonic() - began:.2f} s")
        assert gateway.metric("pinnace_tools_replica_picks", replica=f"{host.url}/mcp") <= 1
    assert outcomes(answers) == {"ok": 20}
    assert len(healthy.ran("pay")) == 20


@pytest.mark.parametrize("fault", ["garbage", "html", "cut", "full", "error"])
def test_a_replica_that_answers_nonsense_is_passed_over(own: Lab, fault: Fault) -> None:
    healthy = own.backend("healthy")
    gateway = own.gateway({"servers": [server("plain", healthy)]})
    gateway.wait_tools("echo")
    with faulty(fault) as broken:
        broken_one = {"name": "v1", "endpoints": [healthy.url, broken.url]}
        gateway.configure({"generation": 2, "servers": [{"name": "plain", "versions": [broken_one]}]})
        eventually("it is asked", lambda: outcomes([gateway.call("echo", {"text": "x"})]) == {"ok": 1} and broken.posts)
        assert outcomes(in_parallel(lambda _: gateway.call("echo", {"text": "x"}), 40)) == {"ok": 40}
    if fault != "full":  # one that says that it is full is well
        assert broken.posts < 40


def test_a_refused_connection_moves_even_an_unsafe_call(own: Lab) -> None:
    healthy, gone = own.backend("healthy"), own.backend("gone")
    gateway = own.gateway({"servers": [server("plain", healthy, gone)]})
    gone.send(signal.SIGKILL)
    eventually("it is dead", lambda: gone.process is not None and gone.process.poll() is not None)
    answers = in_parallel(lambda number: gateway.call("pay", {"amount": number}), 40)
    assert outcomes(answers) == {"ok": 40}
    assert len(healthy.ran("pay")) == 40


def test_what_may_have_run_is_not_run_again_unless_it_is_safe(own: Lab) -> None:
    first, second = own.backend("first"), own.backend("second")
    gateway = own.gateway({"servers": [server("plain", first, second)]})
    answer = gateway.call("die")
    assert answer["outcome"] == "unavailable"
    assert "may have run" in answer["error"]["message"]
    assert len(first.ran("die")) == 1


def test_an_owner_may_say_that_a_tool_is_safe(own: Lab) -> None:
    first, second = own.backend("first"), own.backend("second")
    always = [{"server": "plain", "tool": "die", "retry": "Always"}]
    gateway = own.gateway({"servers": [server("plain", first, second)], "tools": always})
    assert gateway.call("die")["outcome"] == "unavailable"
    assert len(first.ran("die")) == 2  # both died of it, the third attempt found nobody


def test_an_unsafe_call_that_times_out_runs_once(own: Lab) -> None:
    first, second = own.backend("first"), own.backend("second")
    gateway = own.gateway({"servers": [server("plain", first, second)]})
    assert gateway.call("pay_slowly", {"seconds": 30}, timeoutSeconds=0.5)["outcome"] == "timeout"
    assert len(first.ran("pay_slowly")) == 1


def test_a_backup_answers_with_mapped_arguments_and_result(own: Lab) -> None:
    main, standby = own.backend("main", extra="search"), own.backend("standby", extra="find_pages")
    backup = {
        "tool": "find_pages",
        "argumentMapping": {"q": "$.q"},
        "resultMapping": {"text": "$.structuredContent.result"},
    }
    gateway = own.gateway(
        {
            "servers": [server("main", main, include=["search"]), server("standby", standby, include=["find_pages"])],
            "tools": [{"server": "main", "tool": "search", "backups": [backup]}],
        }
    )
    gateway.wait_tools("search", "find_pages")
    assert gateway.call("search", {"q": "cats"})["content"][0]["text"].find("main found") >= 0
    main.stop()
    answer = gateway.call("search", {"q": "cats"})
    assert answer["outcome"] == "ok"
    assert answer["content"] == [{"type": "text", "text": "standby found cats"}]
    assert answer["meta"]["backup"] == "find_pages"
    assert gateway.metric("pinnace_tools_failovers_total", tool="search") == 1


def test_a_backup_that_needs_an_argument_which_the_call_does_not_give_is_not_called(own: Lab) -> None:
    main, standby = own.backend("main", extra="search"), own.backend("standby", extra="find_pages")
    backup = {"tool": "find_pages", "argumentMapping": {"q": "$.q[0].words"}}
    servers = [server("main", main, include=["search"]), server("standby", standby, include=["find_pages"])]
    rule = {"server": "main", "tool": "search", "backups": [backup]}
    gateway = own.gateway({"servers": servers, "tools": [rule]})
    gateway.wait_tools("search", "find_pages")
    main.stop()
    answer = gateway.call("search", {"q": "cats"})
    assert (answer["outcome"], answer["error"]["path"]) == ("invalid_arguments", "$.q[0].words")
    assert standby.ran("find_pages") == []


def test_a_full_queue_says_when_to_come_again(own: Lab) -> None:
    backend = own.backend()
    tight = server("plain", backend, maxInFlightPerReplica=1, queue=1)
    gateway = own.gateway({"servers": [tight], "limits": {"maxQueueSeconds": 1}})

    def call(_number: int) -> Any:
        return gateway.post("/call", {"name": "sleep", "arguments": {"seconds": 3}})

    answers = in_parallel(call, 6, threads=6)
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= 4
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert {answer.json()["outcome"] for answer in refused} == {"overloaded"}
    assert any(answer.status_code == 200 for answer in answers)


def test_a_rate_limit_holds_for_each_tenant(own: Lab) -> None:
    limit = {"server": "plain", "tool": "echo", "rateLimit": {"perSecond": 0.01, "burst": 3}}
    gateway = own.gateway({"servers": [server("plain", own.backend())], "tools": [limit]})
    (own.folder / "tokens" / "others").write_text("others-token")
    body = {"name": "echo", "arguments": {"text": "x"}}
    assert [gateway.post("/call", body).status_code for _ in range(4)] == [200, 200, 200, 429]
    eventually("the new token is known", lambda: gateway.post("/call", body, token="others-token").status_code == 200)


def test_a_call_waits_for_the_first_replica_of_a_server_at_zero(own: Lab) -> None:
    backend = own.backend()
    gateway = own.gateway({"servers": [server("plain", backend, scale={"min": 0, "max": 1})]})
    gateway.wait_tools("echo")
    gateway.configure({"generation": 2, "servers": [server("plain", scale={"min": 0, "max": 1})]})
    eventually("it is in force", lambda: gateway.metric("pinnace_tools_config_generation") == 2)
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(gateway.call("echo", {"text": "held"})))
    waiting.start()
    eventually("it waits", lambda: gateway.metric("pinnace_tools_queue", server="plain") == 1)
    gateway.configure({"generation": 3, "servers": [server("plain", backend, scale={"min": 0, "max": 1})]})
    waiting.join(timeout=30)
    assert outcomes(answers) == {"ok": 1}


def test_a_gateway_that_is_told_to_go_ends_its_calls_first(own: Lab) -> None:
    backend = own.backend()
    gateway = own.gateway({"servers": [server("plain", backend)]})
    answers: list[Any] = []
    calls = [threading.Thread(target=lambda: answers.append(gateway.call("sleep", {"seconds": 2}))) for _ in range(5)]
    for call in calls:
        call.start()
    eventually("they run", lambda: len(backend.ran("sleep")) == 5)
    gateway.send(signal.SIGTERM)
    eventually("unready", lambda: gateway.get("/readyz").status_code == 503)
    for call in calls:
        call.join(timeout=30)
    assert outcomes(answers) == {"ok": 5}
    assert gateway.process is not None
    assert gateway.process.wait(timeout=30) == 0


def test_a_gateway_that_has_just_started_holds_calls_until_it_knows_the_tools(own: Lab) -> None:
    gateway = own.gateway({"servers": [server("plain", own.backend())]})
    for _ in range(3):
        gateway.stop()
        gateway.start()
        assert gateway.port
        assert gateway.call("echo", {"text": "early"})["outcome"] == "ok"


def test_a_gateway_that_starts_among_broken_replicas_knows_the_tools_of_a_whole_one(own: Lab) -> None:
    with faulty("garbage") as replica:
        described = server("plain", own.backend())
        described["versions"][0]["endpoints"] += [f"{replica.url}/{number}" for number in range(9)]
        gateway = own.gateway({"servers": [described]}, wait=False)
        for _ in range(5):
            gateway.stop()
            gateway.start()
            assert gateway.port
            assert gateway.call("echo", {"text": "early"})["outcome"] != "invalid_arguments"
            gateway.wait_tools("echo")


@pytest.mark.parametrize("endpoints", [[], ["http://127.0.0.1:1"]], ids=["at zero", "refuses connections"])
def test_a_gateway_that_starts_while_a_server_is_away_waits_for_its_tools(own: Lab, endpoints: list[str]) -> None:
    away = server("plain", scale={"min": 0, "max": 1})
    away["versions"][0]["endpoints"] = endpoints
    gateway = own.gateway({"servers": [away]}, wait=False)
    assert gateway.port
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(gateway.call("echo", {"text": "held"})))
    waiting.start()
    eventually("it waits", lambda: gateway.metric("pinnace_tools_in_flight") == 1)
    gateway.configure({"generation": 2, "servers": [server("plain", own.backend())]})
    waiting.join(timeout=30)
    assert outcomes(answers) == {"ok": 1}


def test_a_client_that_goes_away_cancels_its_call(own: Lab) -> None:
    import httpx

    backend = own.backend()
    gateway = own.gateway({"servers": [server("plain", backend)]})
    body = {"name": "sleep", "arguments": {"seconds": 60}}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.url}/call", json=body, headers=gateway.headers, timeout=1.5, trust_env=False)
    eventually("cancelled", lambda: any("cancelled" in line for line in backend.ran("sleep")))
    assert gateway.metric("pinnace_tools_replica_in_flight", server="plain") == 0


def _versions(*weighted: tuple[Process, int]) -> list[dict[str, Any]]:
    return [
        {"name": f"v{number}", "weight": weight, "endpoints": [process.url]}
        for number, (process, weight) in enumerate(weighted, 1)
    ]


def test_versions_share_calls_by_weight_and_stand_in_for_each_other(own: Lab) -> None:
    old, new = own.backend("old"), own.backend("new")
    gateway: Gateway = own.gateway({"servers": [{"name": "plain", "versions": _versions((old, 90), (new, 10))}]})
    eventually("both are listed", lambda: gateway.metric("pinnace_tools_replica_picks", version="v2") >= 0)
    who = Counter(gateway.call("who")["content"][0]["text"] for _ in range(200))
    assert 3 <= who["new"] <= 60  # 10 % of 200, with odds of one in a million against it
    old.stop()
    assert outcomes(in_parallel(lambda _: gateway.call("who"), 20)) == {"ok": 20}
