"""What was declared for a server reaches it; nothing else does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import aiohttp
from pinnace.tools.catalogue import entry
from pinnace.tools.catalogue.launch import PLACEHOLDER, environment
from pinnace.tools.serve.cli import declared_names

from .conftest import FAULTY, Caller, Start
from .test_bridge_bounds_its_work import command


async def test_a_child_has_the_variables_of_its_launch_and_no_other(faulty: Start) -> None:
    os.environ["PINNACE_TEST_SECRET_OF_ANOTHER"] = "s3cret"
    served = await faulty(env={"TOKEN": "for me"})
    got = json.loads((await served.call("environment")).text)
    assert {name: value for name, value in got.items() if name != "LC_CTYPE"} == {
        "TOKEN": "for me",
        "PATH": os.environ["PATH"],
    }


async def test_the_command_passes_on_what_is_named(http: aiohttp.ClientSession) -> None:
    given = {"API_KEY": "k", "OTHER_KEY": "o"}
    async with command("--env", "API_KEY", "--env", "MODE=fast", "--", *FAULTY, env=given) as (_, url):
        caller = Caller(url, http)
        got = json.loads((await caller.call("environment")).text)
    assert (got.get("API_KEY"), got.get("MODE"), got.get("OTHER_KEY")) == ("k", "fast", None)


def test_in_a_pod_everything_is_the_servers_but_what_is_ours_and_kubernetes() -> None:
    given = {"PINNACE_SERVER_ENV": "*", "API_KEY": "k", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "PINNACE_POD": "p"}
    assert declared_names(given, [])[1] == {"API_KEY"}


def test_a_missing_key_is_replaced_so_that_the_server_starts_and_a_given_one_is_not() -> None:
    brave = entry("brave")
    without = environment(brave, given={}, workspace=Path("/w"), declared=frozenset())
    with_key = environment(
        brave, given={"BRAVE_API_KEY": "k", "TAVILY_API_KEY": "t"}, workspace=Path("/w"), declared=frozenset()
    )
    assert without["BRAVE_API_KEY"] == PLACEHOLDER
    assert with_key["BRAVE_API_KEY"] == "k"
    assert "TAVILY_API_KEY" not in with_key
