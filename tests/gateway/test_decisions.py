"""The pure parts, by tables."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from pinnace.tools.gateway import backup, jsonpath, retry, route, wire
from pinnace.tools.gateway.breaker import Breaker
from pinnace.tools.gateway.cache import ResultCache, canonical
from pinnace.tools.gateway.catalog import build
from pinnace.tools.gateway.config import RateLimit, parse
from pinnace.tools.gateway.errors import ConfigInvalid, MappingInvalid
from pinnace.tools.gateway.mcpsession import McpSessions
from pinnace.tools.gateway.ratelimit import RateLimiter
from pinnace.tools.gateway.results import shrink
from pinnace.tools.gateway.retry import Failure, Reach
from pinnace.tools.gateway.route import Group, Replica
from pinnace.tools.gateway.schema import ArgumentSchema
from pinnace.tools.gateway.source import ready
from pinnace.tools.outcome import Outcome, ToolResult

seeded = Random  # the order of a test's choices, not a secret


def document(**parts: Any) -> str:
    return json.dumps({"version": 1, **parts})


@dataclass
class Bad:
    name: str
    parts: dict[str, Any]
    says: str


SERVER = {"name": "a", "versions": [{"name": "v1"}]}


def rule(tool: str, *backups: str, **more: Any) -> dict[str, Any]:
    return {"server": "a", "tool": tool, "backups": [{"tool": each} for each in backups], **more}


@pytest.mark.parametrize(
    "case",
    [
        Bad("unknown field", {"colour": "red"}, "colour: Extra inputs"),
        Bad("a number as text", {"limits": {"maxInFlight": "8"}}, "limits.maxInFlight"),
        Bad("server twice", {"servers": [SERVER, SERVER]}, "servers: 'a' stands there more than once"),
        Bad("version twice", {"servers": [{"name": "a", "versions": [{"name": "v"}, {"name": "v"}]}]}, "'v' stands"),
        Bad("tool of nobody", {"tools": [rule("x")]}, "there is no server 'a'"),
        Bad("own backup", {"servers": [SERVER], "tools": [rule("x", "x")]}, "in a circle: x → x"),
        Bad("ring", {"servers": [SERVER], "tools": [rule("x", "y"), rule("y", "z"), rule("z", "x")]}, "x → y → z → x"),
        Bad("ring by alias", {"servers": [SERVER], "tools": [rule("x", "y"), rule("q", "x", alias="y")]}, "→ y → x"),
        Bad("bad path", {"servers": [SERVER], "tools": [{"server": "a", "tool": "x", "backups": [
            {"tool": "y", "argumentMapping": {"q": "$.a["}}]}]}, "can't be read from"),
        Bad("no address", {"servers": [{"name": "a", "versions": [{"endpoints": ["here"]}]}]}, "endpoints.0"),
        Bad("alias twice", {"servers": [SERVER], "tools": [rule("x", alias="n"), rule("y", alias="n")]}, "aliases"),
    ],
    ids=lambda case: case.name,
)  # fmt: skip
def test_a_document_that_can_not_work_is_refused_with_its_place(case: Bad) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        parse(document(**case.parts))
    assert case.says in str(refused.value)


def test_the_documents_defaults_are_those_of_the_contract() -> None:
    config = parse(document(servers=[{"name": "a"}]))
    assert (config.limits.request_bytes, config.limits.result_bytes) == (4_194_304, 262_144)
    assert (config.servers[0].queue, config.servers[0].failure_threshold) == (256, 5)
    assert config.auth.mode == "Token"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", {"a": {"b": [1, 2]}}),
        ("$.a.b[1]", 2),
        ("$['a'].b", [1, 2]),
        ("literal", "literal"),
        (7, 7),
        ("$$.a", "$.a"),
    ],
)
def test_a_mapping_reads_paths_and_takes_the_rest_as_it_is(path: Any, found: Any) -> None:
    assert jsonpath.read(path, {"a": {"b": [1, 2]}}) == found


@pytest.mark.parametrize("path", ["$.x", "$.a.b[2]", "$.a.b.c", "$[0]"])
def test_a_path_to_nowhere_is_named(path: str) -> None:
    with pytest.raises(KeyError) as missing:
        jsonpath.read(path, {"a": {"b": [1, 2]}})
    assert missing.value.args[0] == path


SOURCE = {"type": "object", "properties": {"query": {}, "limit": {}}}
TARGET = {"type": "object", "properties": {"q": {}, "n": {}}, "required": ["q"]}


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"q": "$.question"}, "there is no argument 'question'"),
        ({"query": "$.query", "q": "$.query"}, "has no argument 'query'"),
        ({"n": "$.limit"}, "requires 'q'"),
    ],
)
def test_a_mapping_that_the_schemas_prove_wrong_is_refused(mapping: dict[str, Any], says: str) -> None:
    with pytest.raises(MappingInvalid, match=says):
        backup.check(mapping, source=SOURCE, target=TARGET)


def test_a_result_is_mapped_into_text_and_structure() -> None:
    got = ToolResult(Outcome.OK, ({"type": "text", "text": "raw"},), {"hits": [{"url": "u"}]})
    mapped = backup.result({"text": "$.structuredContent.hits[0].url", "source": "backup"}, got)
    assert mapped.content == ({"type": "text", "text": "u"},)
    assert mapped.structured == {"source": "backup"}


def test_a_breaker_opens_lets_one_call_through_and_doubles_its_time() -> None:
    breaker = Breaker(threshold=3, seconds=10)
    assert [breaker.failed(0) for _ in range(3)] == [False, False, True]
    assert (breaker.allows(9), breaker.state(9)) == (False, "open")
    assert (breaker.allows(10), breaker.state(10)) == (True, "half-open")
    breaker.began(10)
    assert not breaker.allows(10)
    assert breaker.failed(11)
    assert not breaker.allows(30)
    assert breaker.allows(31)
    breaker.began(31)
    breaker.succeeded()
    assert breaker.state(31) == "closed"
    assert breaker.ejections == 0


def test_a_caller_that_goes_away_does_not_keep_a_breaker_half_open() -> None:
    breaker = Breaker(threshold=1, seconds=1)
    breaker.failed(0)
    breaker.began(1)
    breaker.abandoned()
    assert breaker.allows(1)


def test_a_replica_that_fails_more_than_half_of_its_calls_is_an_outlier() -> None:
    breaker = Breaker(threshold=5, seconds=10)
    for _ in range(40):
        breaker.failed(0)
        breaker.failed(0)
        if breaker.open_until:
            return
        breaker.succeeded()
    raise AssertionError("it was never ejected")


def replica(name: str, *, in_flight: int = 0, version: str = "v1") -> Replica:
    return Replica(name, "server", version, Breaker(1, 10), in_flight=in_flight)


def test_the_less_busy_of_two_is_picked() -> None:
    group = Group("v1", 100, [replica("busy", in_flight=9), replica("idle")])
    picked = {route.pick([group], now=0, rng=seeded(n), limit=10) for n in range(20)}
    assert [each.url for each in picked if each] == ["idle"]


def picked(groups: list[Group], rng: Random) -> str:
    found = route.pick(groups, now=0, rng=rng, limit=1)
    return found.url if found else ""


def test_weights_hold_among_the_versions_that_can_serve() -> None:
    groups = [Group("v1", 90, [replica("one")]), Group("v2", 10, [replica("two")]), Group("v3", 900, [])]
    rng = seeded(1)
    picks = Counter(picked(groups, rng) for _ in range(2000))
    assert 130 < picks["two"] < 270
    groups[0].replicas[0].breaker.failed(0)
    assert {picked(groups, rng) for _ in range(50)} == {"two"}


def test_an_ejected_or_tried_replica_is_better_than_none_and_a_full_one_is_not() -> None:
    only = replica("only")
    group = Group("v1", 100, [only])
    only.breaker.failed(0)
    assert route.pick([group], now=0, rng=seeded(1), limit=1) is only
    assert route.pick([group], now=0, rng=seeded(1), limit=1, avoid=[only]) is only
    only.in_flight = 1
    assert route.pick([group], now=0, rng=seeded(1), limit=1) is None


LOST = Failure(Outcome.UNAVAILABLE, Reach.UNKNOWN, "")
NOT_SENT = Failure(Outcome.UNAVAILABLE, Reach.NOT_SENT, "")
FULL = Failure(Outcome.OVERLOADED, Reach.REFUSED, "")


@pytest.mark.parametrize(
    ("policy", "read_only", "failure", "attempt", "again"),
    [
        ("Auto", True, LOST, 1, True),
        ("Auto", False, LOST, 1, False),
        ("Auto", False, NOT_SENT, 1, True),
        ("Auto", False, FULL, 1, True),
        ("Auto", True, LOST, 3, False),
        ("Always", False, LOST, 1, True),
        ("Never", True, NOT_SENT, 1, False),
        ("Auto", True, Failure(Outcome.TOOL_ERROR, Reach.REFUSED, ""), 1, False),
    ],
)
def test_only_what_is_safe_is_repeated(
    policy: retry.Policy, read_only: bool, failure: Failure, attempt: int, again: bool
) -> None:
    safe = retry.is_safe(policy, read_only=read_only, idempotent=False)
    assert retry.may_retry(policy, safe=safe, failure=failure, attempt=attempt) is again


def test_retries_are_a_share_of_the_calls() -> None:
    budget = retry.Budget(20, tokens=0)
    for _ in range(100):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) in {19, 20}


def test_a_bucket_fills_with_time() -> None:
    limiter, limit, key = RateLimiter(), RateLimit(per_second=2, burst=2), ("tool", "tenant")
    assert [limiter.take(key, limit, 0) for _ in range(3)] == [0, 0, 0.5]
    assert limiter.take(key, limit, 0.5) == 0
    assert limiter.take(("tool", "other"), limit, 0.5) == 0


def test_the_same_call_has_the_same_key_whatever_its_order() -> None:
    assert canonical("t", {"a": 1, "b": [2]}) == canonical("t", {"b": [2], "a": 1})
    assert canonical("t", {"a": 1}) != canonical("t", {"a": "1"})


def test_a_cache_forgets_by_time_and_by_size() -> None:
    cache, result = ResultCache(max_bytes=100), ToolResult(Outcome.OK)
    cache.put("old", result, until=10, size=10)
    assert cache.get("old", 9) is result
    assert cache.get("old", 10) is None
    for number in range(11):
        cache.put(str(number), result, until=10, size=10)
    assert cache.get("0", 0) is None
    assert cache.get("10", 0) is result


@pytest.mark.parametrize(
    ("schema", "arguments", "path"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {}, "$"),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": "1"}, "$.a"),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": True}, "$.a"),
        ({"type": "object", "properties": {"a": {"type": "number"}}}, {"a": 1.5}, None),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1.0}, None),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}, {"b": 1}, "$"),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"b": 1}, None),
        ({"type": "object", "properties": {"a": {"items": {"type": "integer"}}}}, {"a": [1, "x"]}, "$.a[1]"),
        ({"type": "object", "properties": {"a": {"enum": ["x"]}}}, {"a": "y"}, "$.a"),
        ({"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "null"}}}, {"a": 1}, "$.a"),
        ({"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}, {"a": 1}, None),
        ({"type": "nonsense"}, {"a": 1}, None),
    ],
)  # fmt: skip
def test_arguments_are_checked_to_the_place(
    schema: dict[str, Any], arguments: dict[str, Any], path: str | None
) -> None:
    problem = ArgumentSchema(schema).problem(arguments)
    assert (problem and problem[0]) == path


def test_names_that_clash_are_told_apart_and_agents_see_no_server() -> None:
    tool = {"name": "search", "inputSchema": {"type": "object"}, "_meta": {"pinnace.dev/server": "x", "kept": 1}}
    config = parse(document(servers=[{"name": "a"}, {"name": "b"}]))
    catalog = build(config, {"a": {"v1": [tool], "v2": [tool, {**tool, "name": "web.open"}]}, "b": {"v1": [tool]}})
    assert set(catalog.tools) == {"a__search", "b__search", "web.open"}
    assert catalog.tools["a__search"].versions == {"v1", "v2"}
    assert catalog.tools["web.open"].definition["_meta"] == {"kept": 1}
    assert len(catalog.problems) == 2
    assert catalog.find("web_open") is catalog.tools["web.open"]
    assert "web_open" in {each["function"]["name"] for each in catalog.openai()}
    assert catalog.nearest("serach") == () or "a__search" in catalog.nearest("a__serach")


@pytest.mark.parametrize(
    "part", [{"inputSchema": "text"}, {"annotations": [1]}, {"_meta": 3}, {"inputSchema": {"type": 4}}]
)
def test_a_definition_that_is_nonsense_spoils_no_other(part: dict[str, Any]) -> None:
    bad, good = {"name": "bad", "inputSchema": {"type": "object"}, **part}, {"name": "good", "inputSchema": {}}
    catalog = build(parse(document(servers=[SERVER])), {"a": {"v1": [bad, good, {"name": 7}, {}]}})
    assert "good" in catalog.tools
    assert any("a.bad" in each for each in catalog.problems)


def test_a_backup_that_can_not_work_is_reported_and_not_used() -> None:
    tools = [{"name": "x", "inputSchema": SOURCE}, {"name": "y", "inputSchema": TARGET}]
    rules = [rule("x")]
    rules[0]["backups"] = [{"tool": "y", "argumentMapping": {"q": "$.nothing"}}, {"tool": "z"}]
    catalog = build(parse(document(servers=[SERVER], tools=rules)), {"a": {"v1": tools}})
    assert catalog.tools["x"].backups == ()
    assert any("there is no argument 'nothing'" in each for each in catalog.problems)
    assert any("'z' of 'x' is not served" in each for each in catalog.problems)


def test_events_are_cut_whatever_the_borders_of_their_chunks() -> None:
    stream = b': ping\r\n\r\nevent: message\r\ndata: {"a":1}\r\n\r\nid: 1\ndata: \n\ndata: x\ndata: y\n\n'
    for size in range(1, len(stream)):
        events = wire.Events()
        found = [data for at in range(0, len(stream), size) for data in events.feed(stream[at : at + size])]
        assert found == [b'{"a":1}', b"x\ny"], size


def test_structured_content_keeps_its_shape_when_it_is_cut() -> None:
    small = shrink({"title": "t", "pages": [{"text": "x" * 50_000}] * 100, "n": 3}, 20_000)
    assert len(wire.dumps(small)) <= 20_000
    assert (small["title"], small["n"], set(small["pages"][0])) == ("t", 3, {"text"})


def test_a_session_id_is_good_for_its_tenant_at_any_gateway_with_the_key() -> None:
    one, two, foreign = McpSessions(b"key"), McpSessions(b"key"), McpSessions(b"other")
    session = one.begin("2025-06-18", "team", {"elicitation": {}}, {"name": "c"})
    found = two.find(session.id, "team")
    assert found is not None
    assert (found.version, found.capabilities, found.info) == ("2025-06-18", {"elicitation": {}}, {"name": "c"})
    assert len(one.begin("2025-06-18", "team", {"experimental": "x" * 10_000}, {}).id) < 1000, "it is a header"
    assert one.find(session.id, "others") is None
    assert foreign.find(session.id, "team") is None
    one.end(session)
    assert one.find(session.id, "team") is None


def test_only_ready_endpoints_get_calls() -> None:
    def slice_of(*endpoints: tuple[str, bool | None]) -> dict[str, Any]:
        return {
            "metadata": {"labels": {"kubernetes.io/service-name": "tools-a-v1"}},
            "endpoints": [
                {"addresses": [address], "conditions": {"ready": state}, "targetRef": {"name": f"pod-{address}"}}
                for address, state in endpoints
            ],
        }

    found = ready([slice_of(("10.0.0.1", True), ("10.0.0.2", False)), slice_of(("10.0.0.3", None))])
    assert found == {"tools-a-v1": {"10.0.0.1": "pod-10.0.0.1", "10.0.0.3": "pod-10.0.0.3"}}
