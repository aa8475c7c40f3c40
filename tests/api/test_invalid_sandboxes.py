"""What a user is told about a wrong ToolSandbox: the real API server's words, which name the field and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pinnace_operator.api.toolsandbox import ToolSandbox
from pydantic import ValidationError

from .cases import Case, Manifest

TIME = {"name": "time", "catalogue": "time"}
IMAGE = {"name": "mine", "image": "registry.example.com/mine:1"}
SEARCH = {"name": "time.now"}


def server(id_: str, fields: dict[str, Any], *says: str, base: dict[str, Any] | None = None) -> Case:
    """A case about one server."""
    given = {name: value for name, value in {**(base or TIME), **fields}.items() if value is not ...}
    return Case(id_, {"servers": [given]}, ("spec.servers[0]", *says))


def tool(id_: str, fields: dict[str, Any], *says: str) -> Case:
    """A case about one tool."""
    return Case(id_, {"tools": [{**SEARCH, **fields}]}, ("spec.tools[0]", *says))


CASES = [
    # Unions
    Case("nothing to serve", {"servers": ...}, ("spec", "there is nothing to serve: add a server, or sessions")),
    server("no source", {"catalogue": ...}, "exactly one of catalogue and image"),
    server("two sources", {"image": "a/b:1"}, "exactly one of catalogue and image"),
    server("a server that the catalogue lacks", {"catalogue": "tme"}, 'catalogue: Unsupported value: "tme"', '"time"'),
    Case("a sandbox's server that the catalogue lacks", {"sessions": {"servers": ["bash"]}},
         ("spec.sessions.servers[0]", 'Unsupported value: "bash"', '"shell"')),
    server("a transport for the catalogue", {"transport": "Http"}, "knows its transport", "or use image"),
    server("arguments for the catalogue", {"args": ["-v"]}, "settings of catalogue servers are in env"),
    server("Stdio without a program", {"transport": "Stdio"}, "set command", base=IMAGE),
    server("Stdio with a port", {"transport": "Stdio", "command": ["a"], "port": 9000}, "has no port", base=IMAGE),
    server("unknown transport", {"transport": "SSE"}, "Unsupported value", '"Stdio", "Http"', base=IMAGE),
    server("Session with an image", {"isolation": "Session"}, "Session is for servers of the catalogue", base=IMAGE),
    server("Session of files", {"catalogue": "files", "isolation": "Session"}, "list files in sessions.servers"),
    server("Session with a scale", {"isolation": "Session", "scale": {}}, "remove versions, scale, env"),
    Case(
        "Session without sandboxes",
        {"servers": [{**TIME, "isolation": "Session"}]},
        ("spec.servers", "add sessions, or use isolation Shared"),
    ),
    # Names
    Case("a long name", {"metadata.name": "a" * 25}, ("metadata.name", "at most 24", "choose a shorter name")),
    Case("a name with a digit first", {"metadata.name": "4tools"}, ("metadata.name", "start with a letter")),
    server("a long server name", {"name": "a" * 21}, "name", "20"),
    server("a server name in capitals", {"name": "Time"}, "lower-case letters", "such as 'web-search'"),
    server("a name of our own", {"name": "gateway"}, "choose another name"),
    server("a version with a dash", {"versions": [{"name": "v-1"}]}, "versions[0].name", "such as 'v2'"),
    server("a long version", {"versions": [{"name": "a" * 13}]}, "versions[0].name", "12"),
    server("two versions of a name", {"versions": [{"name": "v1"}, {"name": "v1"}]}, "Duplicate value"),
    Case("two servers of a name", {"servers": [TIME, TIME]}, ("spec.servers[1]", "Duplicate value")),
    server("an upper-case Secret", {"envFrom": [{"secretName": "Keys"}]}, "envFrom[0].secretName", "lower-case"),
    server("our environment", {"env": [{"name": "PINNACE_TOOLS_SERVER"}]}, "env[0]", "belong to the operator"),
    # Numbers
    server("no version with weight", {"versions": [{"name": "v1", "weight": 0}]}, "a weight above 0"),
    server("a negative weight", {"versions": [{"name": "v1", "weight": -1}]}, "versions[0].weight", "0"),
    server("scale upside down", {"scale": {"minReplicas": 5}}, "scale.minReplicas", "lower it or raise maxReplicas"),
    server("no cool-down", {"scale": {"cooldownSeconds": 1}}, "scale.cooldownSeconds", "5"),
    server("memory above its limit", {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}},
           "resources.requests", "lower the request"),
    Case("more warm than allowed", {"sessions": {"warm": 9, "max": 8}}, ("spec.sessions.warm", "raise max")),
    Case("idle too long", {"sessions": {"idleSeconds": 9, "hardSeconds": 8}}, ("spec.sessions.idle", "raise hard")),
    Case("a tiny workspace", {"sessions": {"workspaceMiB": 1}}, ("spec.sessions.workspaceMiB", "8")),
    Case("odd recycling", {"sessions": {"recycle": "Reuse"}}, ("spec.sessions.recycle", '"Delete", "Restart", "Noop"')),
    Case("no gateway", {"gateway.replicas": 0}, ("spec.gateway.replicas", "1")),
    Case("gateways upside down", {"gateway.scale": {"minReplicas": 9}}, ("spec.gateway.scale.minReplicas", "raise")),
    Case("no lock on the door", {"gateway.auth.mode": "None"}, ("spec.gateway.auth.mode", '"Token", "ServiceAccount"')),
    Case(
        "a Secret that nobody reads",
        {"gateway.auth": {"mode": "ServiceAccount", "secretName": "a"}},
        ("spec.gateway.auth.secretName", "or use mode Token"),
    ),
    # Networks
    server("no network", {"egress": [{"cidr": "10.0.0.0"}]}, "egress[0].cidr", "such as '10.0.0.0/8'"),
    server("a host name", {"egress": [{"cidr": "example.com"}]}, "egress[0].cidr", "must be a network"),
    server("port 0", {"egress": [{"cidr": "10.0.0.0/8", "ports": [0]}]}, "egress[0].ports[0]", "1"),
    # Tools
    tool("a tool without its server", {"name": "now"}, "name", "must be '<server>.<tool>', such as 'web.search'"),
    Case("a tool of no server", {"tools": [{"name": "web.search"}]}, ("spec.tools", "correct it, or add the server")),
    tool("an alias with spaces", {"alias": "the time"}, "alias", "such as 'web_search'"),
    Case(
        "one alias twice",
        {"tools": [{"name": "time.now", "alias": "a"}, {"name": "time.zone", "alias": "a"}]},
        ("spec.tools", "the same alias", "change one"),
    ),
    Case("one tool twice", {"tools": [SEARCH, SEARCH]}, ("spec.tools[1]", "Duplicate value")),
    tool("its own backup", {"backups": [{"tool": "now"}]}, "can't be its own backup: name another tool"),
    tool("its own backup by alias", {"alias": "a", "backups": [{"tool": "a"}]}, "can't be its own backup"),
    tool("no path", {"backups": [{"tool": "b", "argumentMapping": {"q": "$..q"}}]}, "argumentMapping", "should match"),
    tool("no time", {"timeoutSeconds": 0}, "timeoutSeconds", "1"),
    tool("a rate without burst", {"rateLimit": {"perSecond": 5}}, "rateLimit.burst", "Required value"),
    tool("unknown retry", {"retry": "Maybe"}, "retry", '"Auto", "Never", "Always"'),
    tool("five backups", {"backups": [{"tool": name} for name in "abcde"]}, "backups", "4"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_api_server_says_what_is_wrong_and_what_to_do(
    case: Case, sandbox: Callable[[dict[str, Any]], Manifest], message: Callable[[Manifest], str]
) -> None:
    told = message(sandbox(case.paths))
    assert told, "it was accepted"
    assert not [part for part in case.says if part not in told], told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_python_refuses_it_too(case: Case, sandbox: Callable[[dict[str, Any]], Manifest]) -> None:
    with pytest.raises(ValidationError):
        ToolSandbox.from_manifest(sandbox(case.paths))


def test_the_smallest_toolsandbox_itself_is_valid(
    sandbox: Callable[[dict[str, Any]], Manifest], message: Callable[[Manifest], str]
) -> None:
    assert message(sandbox({})) == ""


def test_an_unknown_field_is_named(
    sandbox: Callable[[dict[str, Any]], Manifest], message: Callable[[Manifest], str]
) -> None:
    assert 'unknown field "spec.servers[0].replica"' in message(sandbox({"spec.servers": [{**TIME, "replica": 2}]}))


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= 40


SERVERS = [
    TIME, IMAGE, {**IMAGE, "port": 9000}, {**TIME, "scale": {}}, {**TIME, "scale": {"minReplicas": 4}},
    {**TIME, "scale": {"minReplicas": 5}}, {**TIME, "isolation": "Session"}, {**IMAGE, "transport": "Stdio"},
    {**TIME, "catalogue": "files", "isolation": "Session"},
    {**IMAGE, "transport": "Stdio", "command": ["a"]}, {**TIME, "command": []}, {**TIME, "args": ["a"]},
    {**TIME, "egress": [{"cidr": "0.0.0.0/0"}]}, {**TIME, "egress": [{"cidr": "10.0.0.1/8"}]},
    {**TIME, "egress": [{"cidr": "::/0"}]}, {**TIME, "egress": [{"cidr": "10.0.0.0/33"}]},
    {**TIME, "egress": [{"cidr": "010.0.0.0/8"}]}, {**TIME, "versions": []}, {**TIME, "tools": {"include": ["a.b"]}},
    {**TIME, "versions": [{"name": "a", "weight": 0}, {"name": "b"}]}, {**TIME, "tools": {"include": ["a", "a"]}},
    {**TIME, "env": [{"name": "AWS_REGION", "value": "r"}]}, {"name": "session", "catalogue": "arxiv"},
    {**TIME, "catalogue": "arXiv"},
]  # fmt: skip
TOOLS = [
    SEARCH, {"name": "time.a.b"}, {"name": "python.run"}, {"name": "web.a"}, {**SEARCH, "alias": "a"},
    {"name": "time.x", "alias": "a"}, {"name": "mine.x", "backups": [{"tool": "x"}]},
    {"name": "time.y", "backups": [{"tool": "b", "argumentMapping": {"q": "$.a[0].b", "n": "5", "t": '"x"', "e": ""}}]},
    {"name": "time.z", "backups": [{"tool": "b", "argumentMapping": {"q": '"$5"'}}]},
    {"name": "time.w", "backups": [{"tool": "b", "resultMapping": {"q": "two\nlines $"}}]},
]  # fmt: skip
specs = st.fixed_dictionaries(
    {"servers": st.lists(st.sampled_from(SERVERS), min_size=0, max_size=2)},
    optional={
        "tools": st.lists(st.sampled_from(TOOLS), max_size=2),
        "sessions": st.sampled_from([{}, {"warm": 0}, {"warm": 65}, {"servers": ["python"]}, {"idleSeconds": 7201}]),
        "gateway": st.sampled_from([{}, {"replicas": 2}, {"auth": {"secretName": "a"}}, {"scale": {"maxReplicas": 1}}]),
        "suspend": st.booleans(),
    },
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=specs)
def test_python_and_the_api_server_agree(message: Callable[[Manifest], str], spec: dict[str, Any]) -> None:
    manifest = {
        "apiVersion": "pinnace.dev/v1alpha1", "kind": "ToolSandbox", "metadata": {"name": "tools"}, "spec": spec
    }  # fmt: skip
    told = message(manifest)
    try:
        ToolSandbox.from_manifest(manifest)
    except ValidationError as error:
        event("refused")
        assert told, f"only Python refuses {spec}: {error}"
    else:
        event("accepted")
        assert not told, f"only the API server refuses {spec}: {told}"
