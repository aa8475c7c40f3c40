"""Every server of the catalogue really starts here, lists what its entry declares, and answers its canary call."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from pinnace.tools.catalogue import (
    Granted,
    Isolation,
    Runtime,
    UnknownServer,
    document,
    entries,
    entry,
    expected_outcome,
    refusal,
)
from pinnace.tools.catalogue.loader import ENTRIES
from pinnace.tools.outcome import Outcome
from pinnace.tools.serve.cli import of_entry
from pinnace.tools.serve.settings import Limits
from pinnace.tools.world import build
from pinnace.tools.world.http import application

from .conftest import Caller

REPOSITORY = Path(__file__).parents[2]
TOOLS: dict[str, list[str]] = {}  # what each server really listed
# A call that must be a tool error, also where the server itself reports it as ordinary text.
MISTAKES: dict[str, tuple[str, dict[str, Any]]] = {
    "powerpoint": ("save_presentation", {"file_path": "x.pptx", "presentation_id": "none"}),
    "sqlite": ("read_query", {"query": "select * from missing"}),
    "word": ("get_document_info", {"filename": "missing.docx"}),
    "arxiv": ("read_paper", {"paper_id": "2401.00001"}),
    "duckdb": ("execute_query", {"sql": "select * from missing"}),
    "excel": ("describe_workbook", {"path": "missing.xlsx"}),
    "calc": ("math", {"expression": "1 +"}),
    "time": ("convert_time", {"source_timezone": "Nowhere", "time": "12:00", "target_timezone": "UTC"}),
    "filesystem": ("read_text_file", {"path": "/etc/passwd"}),
    "memory": ("add_observations", {"observations": [{"entityName": "nobody", "contents": ["x"]}]}),
    "markitdown": ("convert_to_markdown", {"uri": "file:///nowhere"}),
    "files": ("read_document", {"path": "missing.txt"}),
    "calculator": ("calculate", {"expression": "1 +"}),
    "world": ("open", {"url": "http://world.test/nowhere"}),
}


async def proven(name: str, folder: Path, http: aiohttp.ClientSession) -> list[str]:
    """Starts the server, checks it, and gives the names that it lists."""
    found = entry(name)
    given = {"PATH": os.environ["PATH"], "HOME": str(folder), "PINNACE_WORLD_PAGES": "200"}
    async with of_entry(found, given, frozenset(), folder, Limits()) as bridge:
        caller = Caller(bridge.url, http)
        await caller.becomes_ready(seconds=60)  # the bridge's own contract test has passed
        _, listed = await caller.ask("tools/list")
        tools = listed["result"]["tools"]
        result = await caller.call(found.canary.tool, **found.canary.arguments)
        if name in MISTAKES:
            tool, arguments = MISTAKES[name]
            wrong = await caller.call(tool, **arguments)
            assert wrong.outcome is Outcome.TOOL_ERROR, wrong.text
        skipped = await caller.metric('pinnace_serve_skipped_lines_total{kind="garbage"}')
    assert all(tool["inputSchema"]["type"] == "object" and tool.get("description") for tool in tools)
    assert result.outcome is expected_outcome(found, found.canary, Granted.from_env(given)), result.text
    assert skipped == 0, "stdout is the protocol's"
    return sorted(tool["name"] for tool in tools)


@pytest.mark.parametrize("name", list(entries()))
async def test_a_server_starts_lists_its_tools_and_answers_its_canary(
    name: str, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    TOOLS[name] = await proven(name, tmp_path, http)
    assert TOOLS[name] == sorted(entry(name).tools)


async def test_there_are_sixteen_servers_and_a_hundred_tools(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    for name in entries():
        if name not in TOOLS:  # this test is run alone
            TOOLS[name] = await proven(name, tmp_path, http)
    assert len(TOOLS) >= 16
    assert sum(len(tools) for tools in TOOLS.values()) >= 100


def test_what_is_generated_from_the_catalogue_is_up_to_date() -> None:
    assert {path: path.read_text() for path in document.files()} == document.files()


async def test_a_server_on_the_offline_world_searches_it_and_reads_its_pages_and_pdfs(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    made = build(seed=7, pages=200)
    runner = web.AppRunner(application(made))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    company = made.graph.companies[0]
    given = {"PATH": os.environ["PATH"], "PINNACE_WORLD_URL": f"http://127.0.0.1:{runner.addresses[0][1]}"}
    async with of_entry(entry("web"), given, frozenset(), tmp_path, Limits()) as bridge:
        caller = Caller(bridge.url, http)
        await caller.becomes_ready()
        found = await caller.call("search", query=f"founder of {company.name}")
        page = await caller.call("fetch_page", url=f"http://world.test{company.path}", goal="Who founded it?")
        pdf = await caller.call("fetch_page", url=f"http://world.test/files/{company.slug}.pdf")
        outside = await caller.call("fetch_page", url=given["PINNACE_WORLD_URL"])
    await runner.cleanup()
    assert found.structured["provider"] == "world"
    assert f"http://world.test{company.path}" in found.text
    assert company.links["founder"].name in page.text
    assert page.structured["passages"]
    assert f"Revenue 2024: {company.values['revenue 2024']}" in pdf.text
    assert outside.outcome is Outcome.DENIED


def test_versions_are_those_of_the_locks() -> None:
    locks = {
        Runtime.PYTHON_MCP1: (REPOSITORY / "requirements/catalogue-mcp1.txt").read_text(),
        Runtime.PYTHON_MCP2: (REPOSITORY / "requirements/catalogue-mcp2.txt").read_text(),
    }
    npm = json.loads((REPOSITORY / "images/catalogue-npm/package-lock.json").read_text())["packages"]
    for each in entries().values():
        if each.runtime in locks:
            assert re.search(
                rf"^{re.escape(each.package)}=={re.escape(each.version)} ", locks[each.runtime], re.MULTILINE
            ), each.name
        elif each.runtime is Runtime.NPM:
            assert npm[f"node_modules/{each.package}"]["version"] == each.version, each.name


def test_the_npm_lock_names_no_registry_and_has_a_hash_for_every_package() -> None:
    packages = json.loads((REPOSITORY / "images/catalogue-npm/package-lock.json").read_text())["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert not [name for name, package in packages.items() if name and "integrity" not in package]


def test_an_unknown_server_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(UnknownServer, match="did you mean filesystem"):
        entry("filesytem")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tools": ["a", "a"]}, "twice"),
        ({"canary": {"tool": "nope"}}, "not among tools: nope"),
        ({"needs": {"internet": ["nope"]}}, "not among tools: nope"),
        ({"isolation": "Shared"}, "isolated per session"),
        ({"packge": "x"}, "packge"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"failure": "("}, "no regular expression"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(change: dict[str, object], message: str) -> None:
    from pinnace.tools.catalogue import Entry

    data = yaml.safe_load((ENTRIES / "git.yaml").read_text())
    with pytest.raises(ValueError, match=message):
        Entry.model_validate(data | change)


def test_a_tool_without_its_key_names_the_key_of_the_secret() -> None:
    brave = entry("brave")
    assert "key BRAVE_API_KEY" in str(refusal(brave, "brave_web_search", Granted(internet=True)))
    assert refusal(brave, "brave_web_search", Granted(internet=True, variables=frozenset({"BRAVE_API_KEY"}))) is None


def test_a_tool_that_needs_the_internet_says_so_only_where_there_is_none() -> None:
    arxiv = entry("arxiv")
    assert "needs the internet" in str(refusal(arxiv, "search_papers", Granted()))
    assert refusal(arxiv, "search_papers", Granted(internet=True)) is None
    assert refusal(arxiv, "list_papers", Granted()) is None, "what is stored is read without it"


def test_an_empty_variable_is_no_key() -> None:
    assert Granted.from_env({"BRAVE_API_KEY": "", "PINNACE_INTERNET": "allowed"}) == Granted(
        internet=True, variables=frozenset({"PINNACE_INTERNET"})
    )


def test_what_keeps_state_is_never_shared() -> None:
    shared = {each.name for each in entries().values() if each.isolation is Isolation.SHARED}
    assert shared >= {"time", "calculator", "web", "world"}
    assert not shared & {"memory", "filesystem", "excel", "git"}


async def test_a_server_that_is_not_installed_says_what_to_do(tmp_path: Path) -> None:
    from pinnace.tools.catalogue import NotInstalled

    with pytest.raises(NotInstalled, match="make setup"):
        of_entry(entry("time"), {"PINNACE_CATALOGUE": str(tmp_path)}, frozenset(), tmp_path, Limits())


async def test_a_server_that_lacks_a_declared_tool_is_not_ready(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    from .conftest import eventually

    changed = entry("calculator").model_copy(update={"tools": ("add", "calculate", "convert_units", "integrate")})
    async with of_entry(changed, dict(os.environ), frozenset(), tmp_path, Limits()) as bridge:
        caller = Caller(bridge.url, http)

        async def reported() -> bool:
            return "declares are missing: integrate" in (await caller.ready())[1]["message"]

        await eventually(reported)


async def test_a_canary_with_another_outcome_keeps_the_server_out(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    from pinnace.tools.catalogue import Canary

    from .conftest import eventually

    changed = entry("calculator").model_copy(
        update={"canary": Canary(tool="calculate", arguments={"expression": "1/0"})}
    )
    async with of_entry(changed, dict(os.environ), frozenset(), tmp_path, Limits()) as bridge:
        caller = Caller(bridge.url, http)

        async def reported() -> bool:
            return (
                f"ended {Outcome.TOOL_ERROR}, not {Outcome.OK}: division by zero"
                in (await caller.ready())[1]["message"]
            )

        await eventually(reported)
