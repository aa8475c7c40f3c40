"""Servers of the catalogue that keep something: each lease has its own, on the files of its workspace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.gateway import sandboxes
from e2e.gateway.lab import Gateway, Lab
from e2e.gateway.sandboxes import Sandboxes, configuration, end, ready, shell

SERVERS = ["shell", "files", "sqlite", "memory", "filesystem"]


@pytest.fixture(scope="module")
def stateful(shared: Lab) -> Sandboxes:
    return sandboxes.start(shared, 2, servers=",".join(SERVERS))


@pytest.fixture(scope="module")
def before(shared: Lab, stateful: Sandboxes) -> Gateway:
    """A gateway before them; `db` is what the ToolSandbox calls its SQLite."""
    db = {"name": "db", "catalogue": "sqlite", "isolation": "Session", "exclude": ["append_insight"]}
    rules = [
        {"server": "db", "tool": "read_query", "alias": "sql"},
        {"server": "memory", "tool": "read_graph", "alias": "graph"},
    ]
    return ready(shared.gateway({"servers": [db], "tools": rules, **configuration(stateful, servers=SERVERS)}), 2)


@pytest.fixture
def two(before: Gateway, stateful: Sandboxes) -> Iterator[list[dict[str, str]]]:
    yield before.post("/sessions", {"count": 2}).json()["sessions"]
    stateful.free()


def call(gateway: Gateway, held: dict[str, str], name: str, **arguments: Any) -> Any:
    return gateway.call(name, arguments, token=held["token"])


def test_their_tools_are_listed_under_names_of_their_own(before: Gateway) -> None:
    names = before.tools()
    assert {"sql", "write_query", "graph", "create_entities", "read_file", "filesystem__read_file"} <= set(names)
    assert not {"append_insight", "read_query", "read_graph"} & set(names), "excluded, or known by an alias"
    assert len(names) == len(set(names))
    assert set(before.get("/tools").json()["inSessions"]) == set(names), "all of them need a lease"


def test_each_lease_has_its_own_server_on_its_own_files(before: Gateway, two: list[dict[str, str]]) -> None:
    one, other = two
    for held, row in ((one, "insert into t values (1)"), (other, "insert into t values (2)")):
        assert call(before, held, "sql", query="select x from t")["outcome"] == "tool_error", "no such table yet"
        assert call(before, held, "create_table", query="create table t (x)")["outcome"] == "ok"
        assert call(before, held, "write_query", query=row)["outcome"] == "ok"
    assert "2" in str(call(before, other, "sql", query="select x from t")["content"])
    assert shell(before, one, "ls").split() == ["database.sqlite"]
    entity = {"name": "ada", "entityType": "person", "observations": ["wrote the first program"]}
    assert call(before, one, "create_entities", entities=[entity])["outcome"] == "ok"
    assert "ada" in str(call(before, one, "graph"))
    assert "ada" not in str(call(before, other, "graph"))


def test_what_a_server_kept_is_gone_with_its_lease(before: Gateway, two: list[dict[str, str]]) -> None:
    for held in two:
        call(before, held, "create_table", query="create table t (x)")
        assert end(before, held) == 204
    group = before.post("/sessions", {"count": 2}).json()["sessions"]
    for held in group:
        assert "'t'" not in str(call(before, held, "list_tables")["content"])


def test_a_server_that_its_lease_kills_comes_back_and_can_not_blame_the_infrastructure(
    before: Gateway, two: list[dict[str, str]]
) -> None:
    held = two[0]
    call(before, held, "create_table", query="create table t (x)")
    shell(before, held, "pkill -f mcp-server-sqlite; sleep 0.5")
    answers = [call(before, held, "list_tables") for _ in range(2)]
    assert {each["outcome"] for each in answers} <= {"ok", "tool_error"}
    assert "'t'" in str(answers[-1]["content"])


def test_without_a_lease_they_are_denied_as_all_tools_of_sandboxes(before: Gateway) -> None:
    assert before.call("sql", {"query": "select 1"})["outcome"] == "denied"
