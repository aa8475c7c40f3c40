"""What an agent sees of the gateway by REST."""

from __future__ import annotations

import httpx
import pytest

from e2e.gateway.lab import Gateway


def test_tools_come_in_the_form_of_chat_completions(gateway: Gateway) -> None:
    tools = {each["function"]["name"]: each for each in gateway.get("/tools").json()["tools"]}
    assert tools["echo"]["type"] == "function"
    assert tools["echo"]["function"]["description"] == "Gives the text back."
    assert tools["echo"]["function"]["parameters"]["required"] == ["text"]


def test_a_call_gives_content_and_what_it_took(gateway: Gateway) -> None:
    answer = gateway.call("echo", {"text": "hällo"})
    assert answer["outcome"] == "ok"
    assert answer["content"] == [{"type": "text", "text": "hällo"}]
    assert answer["meta"]["attempts"] == 1


def test_structured_content_comes_through(gateway: Gateway) -> None:
    assert gateway.call("add", {"a": 1, "b": 2})["structuredContent"] == {"sum": 3}


def test_a_tool_that_fails_is_no_failure_of_the_infrastructure(gateway: Gateway) -> None:
    answer = gateway.call("fail", {"message": "no such row"})
    assert (answer["outcome"], answer["isError"]) == ("tool_error", True)
    assert "no such row" in answer["content"][0]["text"]


def test_an_unknown_tool_gets_the_nearest_names(gateway: Gateway) -> None:
    answer = gateway.call("ecco", {"text": "x"})
    assert answer["outcome"] == "invalid_arguments"
    assert answer["error"]["suggestions"] == ["echo"]


def test_wrong_arguments_are_named_by_path_and_reach_no_server(gateway: Gateway) -> None:
    answer = gateway.call("add", {"a": "one", "b": 2})
    assert answer["outcome"] == "invalid_arguments"
    assert answer["error"]["path"] == "$.a"
    assert answer["meta"]["attempts"] == 0


def test_a_call_that_takes_too_long_is_a_timeout(gateway: Gateway) -> None:
    answer = gateway.call("sleep", {"seconds": 30}, timeoutSeconds=0.3)
    assert answer["outcome"] == "timeout"


def test_the_server_learns_request_deadline_and_trace(gateway: Gateway) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def seen(header: str) -> str:
        body = {"name": "head", "arguments": {"name": header}, "timeoutSeconds": 20}
        sent = {"traceparent": trace, "X-Request-Id": "mine-1"}
        return str(gateway.post("/call", body, **sent).json()["content"][0]["text"])

    assert seen("traceparent") == trace
    assert seen("X-Request-Id") == "mine-1"
    assert 0 < int(seen("X-Pinnace-Deadline-Ms")) <= 20_000


def test_no_token_and_a_wrong_token_are_refused(gateway: Gateway) -> None:
    assert httpx.get(f"{gateway.url}/tools", trust_env=False).status_code == 401
    assert gateway.post("/call", {"name": "echo"}, token="guess").status_code == 401


@pytest.mark.parametrize("path", ["/call", "/mcp", "/sessions", "/replay"])
def test_a_body_that_is_not_json_is_refused(gateway: Gateway, path: str) -> None:
    headers = {**gateway.headers, "Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    answer = httpx.post(gateway.url + path, content=b"{", headers=headers, trust_env=False)
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["error"]["message"]


def test_a_request_above_the_limit_is_refused(gateway: Gateway) -> None:
    answer = gateway.post("/call", {"name": "echo", "arguments": {"text": "x" * (5 << 20)}})
    assert answer.status_code == 413


def test_a_request_that_does_not_say_its_length_is_refused_once_it_is_above_the_limit(gateway: Gateway) -> None:
    parts = (b"x" * (1 << 20) for _ in range(8))
    answer = httpx.post(f"{gateway.url}/call", content=parts, headers=gateway.headers, trust_env=False)
    assert answer.status_code == 413


def test_the_audit_log_names_the_call_and_nothing_of_its_content(gateway: Gateway) -> None:
    import json

    from e2e.gateway.lab import eventually

    answer = gateway.call("echo", {"text": "a-secret-in-arguments"})
    wanted = answer["meta"]["requestId"]
    line = eventually(
        "the line", lambda: next((x for x in gateway.audit.read_text().splitlines() if wanted in x), None)
    )
    found = json.loads(line)
    assert (found["tenant"], found["tool"], found["outcome"]) == ("team", "echo", "ok")
    assert "a-secret-in-arguments" not in gateway.audit.read_text()
    assert gateway.token not in gateway.audit.read_text()


def test_metrics_count_calls_by_outcome(gateway: Gateway) -> None:
    before = gateway.metric("pinnace_tools_calls_total", tool="echo", outcome="ok")
    gateway.call("echo", {"text": "x"})
    assert gateway.metric("pinnace_tools_calls_total", tool="echo", outcome="ok") == before + 1
