"""The configuration changes under load: it takes effect at once, and no call fails."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from e2e.gateway.lab import Gateway, Lab, eventually, server


@contextmanager
def load(gateway: Gateway, tool: str, arguments: dict[str, Any], threads: int = 4) -> Iterator[Counter[str]]:
    """Calls without pause; counts how they end."""
    counts: Counter[str] = Counter()
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            answer = gateway.call(tool, arguments)
            counts[answer["outcome"] if answer["outcome"] == "ok" else str(answer)] += 1

    running = [threading.Thread(target=run) for _ in range(threads)]
    for each in running:
        each.start()
    try:
        yield counts
    finally:
        stop.set()
        for each in running:
            each.join()


def test_servers_come_go_and_change_versions_without_a_failed_call(own: Lab) -> None:
    first, second, third = own.backend("first"), own.backend("second"), own.backend("third", extra="search")
    gateway = own.gateway({"servers": [server("plain", first)]})

    def put(generation: int, *servers: dict[str, Any]) -> None:
        gateway.configure({"generation": generation, "servers": list(servers)})
        began = time.monotonic()
        eventually("in force", lambda: gateway.metric("pinnace_tools_config_generation") == generation)
        took.append(time.monotonic() - began)

    def settled(counts: Counter[str]) -> None:
        seen = counts["ok"]
        eventually("more calls", lambda: counts["ok"] > seen + 20)

    took: list[float] = []
    other = {"name": "v2", "endpoints": [second.url]}
    with load(gateway, "pay", {"amount": 1}) as counts:  # not safe: nothing is hidden by a retry
        settled(counts)
        put(2, server("plain", first), server("more", third, include=["search"]))
        gateway.wait_tools("search")
        settled(counts)
        put(3, {"name": "plain", "versions": [{"name": "v1", "weight": 50, "endpoints": [first.url]}, other]})
        eventually("the new version serves", lambda: any("second" in line for line in first.ran("pay")))
        put(4, {"name": "plain", "versions": [other]})
        settled(counts)
        first.stop()
        settled(counts)
        assert "search" not in gateway.tools()
    assert set(counts) == {"ok"}, counts
    print(f"\n{counts['ok']} calls, 0 failed; changes took effect in {max(took):.2f} s at most")


def test_a_bad_document_changes_nothing_and_is_reported(own: Lab) -> None:
    gateway = own.gateway({"generation": 1, "servers": [server("plain", own.backend())]})
    gateway.configure({"generation": 2, "servers": [], "unknown": True})
    eventually("it is counted", lambda: gateway.metric("pinnace_tools_config_errors_total") == 1)
    assert gateway.metric("pinnace_tools_config_generation") == 1
    assert gateway.call("echo", {"text": "x"})["outcome"] == "ok"
    assert "unknown" in gateway.log.read_text()


def test_one_server_that_is_down_takes_only_its_own_tools_along(own: Lab) -> None:
    gone = {"name": "gone", "versions": [{"name": "v1", "endpoints": ["http://127.0.0.1:1"]}]}
    gateway = own.gateway({"servers": [server("plain", own.backend()), gone]})
    assert gateway.get("/readyz").status_code == 200
    assert gateway.call("echo", {"text": "x"})["outcome"] == "ok"


def test_names_that_two_servers_use_are_told_apart_and_an_alias_replaces_a_name(own: Lab) -> None:
    first, second = own.backend("first"), own.backend("second")
    rule = {"server": "two", "tool": "add", "alias": "sum_up"}
    gateway = own.gateway({"servers": [server("one", first), server("two", second)], "tools": [rule]})
    gateway.wait_tools("one__who", "two__who", "sum_up", "add")
    assert gateway.call("two__who")["content"][0]["text"] == "second"
    assert gateway.call("sum_up", {"a": 1, "b": 1})["structuredContent"] == {"sum": 2}
    assert "'who' is used by several servers" in gateway.log.read_text()


def test_results_are_cached_for_as_long_as_their_tool_allows(own: Lab) -> None:
    rule = {"server": "plain", "tool": "search", "cacheTtlSeconds": 60}
    backend = own.backend("plain", extra="search")
    gateway = own.gateway({"servers": [server("plain", backend)], "tools": [rule]})
    first, again = gateway.call("search", {"q": "a"}), gateway.call("search", {"q": "a"})
    assert again["meta"]["cached"] and again["content"] == first["content"]
    gateway.call("search", {"q": "b"})
    assert len(backend.ran("search")) == 2


def test_recorded_calls_are_served_again_without_the_tool(own: Lab) -> None:
    backend = own.backend("plain", extra="search")
    gateway = own.gateway({"servers": [server("plain", backend)]})

    def call(mode: str, query: str) -> Any:
        headers = {"X-Pinnace-Replay": mode, "X-Pinnace-Replay-Key": "run-1"}
        return gateway.post("/call", {"name": "search", "arguments": {"q": query}}, **headers).json()

    recorded = call("record", "cats")
    backend.stop()
    replayed = call("replay", "cats")
    assert replayed["content"] == recorded["content"]
    assert replayed["meta"]["replayed"] is True
    missing = call("replay", "dogs")
    assert (missing["outcome"], "record it first" in missing["error"]["message"]) == ("unavailable", True)
