"""The official TypeScript clients and the official conformance suite, unmodified."""

from __future__ import annotations

import json
import re

import pytest

from e2e.gateway import node
from e2e.gateway.lab import TOKEN, Gateway, Lab, server

_LINE = re.compile(r"^[✓✗] ([a-z0-9-]+): (\d+) passed, (\d+) failed", re.MULTILINE)
# The gateway serves tools: what needs prompts, resources or completion does not apply.
_OTHERS = re.compile(r"(resources|prompts|completion)-|sep-2164-|caching$|input-required-result-non-tool-request$")


@pytest.mark.parametrize(("generation", "protocol"), [("v1", "2025-11-25"), ("v2", "2026-07-28")])
def test_the_typescript_client_works_unmodified(gateway: Gateway, generation: str, protocol: str) -> None:
    ended = node.run("client.mjs", generation, gateway.mcp, TOKEN, seconds=60)
    assert ended.returncode == 0, ended.stderr
    got = json.loads(ended.stdout)
    assert {"echo", "add"} <= set(got["tools"])
    assert got["sum"] == {"sum": 3}
    assert got["wrong"] == {"isError": True, "outcome": "invalid_arguments"}
    assert got["progress"] == [1, 2, 3]
    assert got["many"] == [str(number) for number in range(50)]
    assert got["protocol"] == protocol


def conformance(url: str, revision: str) -> dict[str, tuple[int, int]]:
    """Checks passed and failed by scenario."""
    program = "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    ended = node.run(program, "server", "--url", url, "--suite", "all", "--spec-version", revision)
    found = {name: (int(passed), int(failed)) for name, passed, failed in _LINE.findall(ended.stdout)}
    assert found, ended.stdout + ended.stderr
    return found


@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
def test_every_conformance_scenario_that_applies_passes(own: Lab, revision: str) -> None:
    bare = own.everything()
    gateway = own.gateway({"auth": {"mode": "None"}, "servers": [server("everything", bare)]})
    direct, through = conformance(f"{bare.url}/mcp", revision), conformance(gateway.mcp, revision)
    print(f"\n{revision:<46}bare SDK server   gateway")
    for name in through:
        counts = [f"{each[name][0]} of {sum(each[name])}" for each in (direct, through)]
        print(f"{name:<46}{counts[0]:<18}{counts[1]}")
    applies = {name: counts for name, counts in through.items() if not _OTHERS.match(name)}
    passed = [name for name, (_, failed) in applies.items() if failed == 0]
    known = sum(direct[name][1] == 0 for name in applies)
    print(f"scenarios that apply: {len(applies)}; passed by the bare server {known}, by the gateway {len(passed)}")
    assert set(applies) == set(passed)
    assert len(applies) >= 20
