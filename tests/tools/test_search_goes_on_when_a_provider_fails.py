"""Search with several providers, each spoken to over HTTP as its API is documented; here they answer from loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from pinnace.tools.servers.web.errors import NoProvider
from pinnace.tools.servers.web.extract import page_of, passages
from pinnace.tools.servers.web.providers import (
    Provider,
    ProviderError,
    brave,
    configured,
    searxng,
    serper,
    tavily,
    world,
)
from pinnace.tools.servers.web.search import Search, cool_down
from pinnace.tools.world import build
from pinnace.tools.world.http import application

ANSWERS: dict[str, dict[str, Any]] = {
    "/res/v1/web/search": {"web": {"results": [{"title": "T", "url": "http://u", "description": "S", "age": "x"}] * 3}},
    "/search": {
        "results": [{"title": "T", "url": "http://u", "content": "S"}] * 3,
        "organic": [{"title": "T", "link": "http://u", "snippet": "S"}] * 3,
    },
}


@dataclass
class Api:
    """A server that answers as the providers do, with the status that a test sets."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    state = Api()

    async def answer(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else dict(request.query)
        state.asked.append((request.path, dict(request.headers), body))
        return web.json_response(ANSWERS[request.path], status=state.status, headers=state.headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    state.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield state
    await runner.cleanup()


@pytest.mark.parametrize(
    "make", [lambda u: brave("key", u), lambda u: tavily("key", u), lambda u: serper("key", u), searxng]
)
async def test_a_provider_is_asked_as_its_api_wants_and_its_results_are_read(api: Api, make: Any) -> None:
    provider: Provider = make(api.url)
    found = await provider.search("grüße & co", 2)
    assert [(each.title, each.url, each.snippet) for each in found] == [("T", "http://u", "S")] * 2
    _, headers, body = api.asked[0]
    assert "grüße & co" in (body.get("q"), body.get("query"))
    assert provider.name == "searxng" or any("key" in value for value in headers.values())


async def test_the_offline_world_is_a_provider() -> None:
    runner = web.AppRunner(application(build(seed=7, pages=200)))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    town = build(seed=7, pages=200).graph.places[0]
    found = await world(f"http://127.0.0.1:{runner.addresses[0][1]}").search(f"mayor of {town.name}", 3)
    await runner.cleanup()
    assert found[0].url == f"http://world.test{town.path}"


def test_providers_are_those_whose_variable_is_set_in_the_order_that_is_asked_for() -> None:
    given = {"BRAVE_API_KEY": "b", "SERPER_API_KEY": "s", "PINNACE_WORLD_URL": "http://w"}
    assert [each.name for each in configured(given)] == ["brave", "serper", "world"]
    given["PINNACE_SEARCH_PROVIDERS"] = "world,tavily,brave"
    assert [each.name for each in configured(given)] == ["world", "brave"]
    with pytest.raises(ValueError, match="no search providers: gogle"):
        configured({"PINNACE_SEARCH_PROVIDERS": "gogle"})


async def test_a_provider_that_fails_is_passed_over_and_left_alone_until_it_has_cooled_down(api: Api) -> None:
    now = [1000.0]
    broken, working = Api(), api
    broken.url = "http://127.0.0.1:9"  # the discard port: nobody listens
    search = Search([brave("k", broken.url), tavily("k", working.url)], clock=lambda: now[0])
    first = await search.search("x", 1)
    assert (first.provider, first.failed[0][0]) == ("tavily", "brave")
    second = await search.search("x", 1)
    assert "asked again in" in second.failed[0][1], "it was not asked a second time"
    now[0] += 10
    third = await search.search("x", 1)
    assert "asked again in" not in third.failed[0][1], "it was"


async def test_a_provider_that_works_again_is_first_again(api: Api) -> None:
    now = [0.0]
    search = Search([brave("k", api.url)], clock=lambda: now[0])
    api.status = 500
    with pytest.raises(NoProvider, match="brave: HTTP 500"):
        await search.search("x", 1)
    api.status = 200
    now[0] += 6
    assert (await search.search("x", 1)).provider == "brave"


async def test_a_rate_limit_is_kept_as_long_as_the_provider_says(api: Api) -> None:
    api.status, api.headers = 429, {"Retry-After": "17"}
    with pytest.raises(ProviderError) as error:
        await tavily("k", api.url).search("x", 1)
    assert cool_down(error.value, 1) == 17


@pytest.mark.parametrize(
    ("status", "failures", "seconds"),
    [(429, 1, 60), (401, 1, 3600), (403, 9, 3600), (500, 1, 5), (0, 3, 20), (503, 50, 300)],
)
def test_cool_downs(status: int, failures: int, seconds: float) -> None:
    assert cool_down(ProviderError("x", status=status), failures) == seconds


async def test_without_a_provider_the_variables_are_named() -> None:
    with pytest.raises(
        NoProvider, match="BRAVE_API_KEY, TAVILY_API_KEY, SERPER_API_KEY, SEARXNG_URL, PINNACE_WORLD_URL"
    ):
        await Search([]).search("x", 1)


PAGE = """<html><head><title>Zebra facts</title><script>alert("zebra stripes")</script></head>
<body><nav>zebra home</nav>
<main><h1>Zebras</h1><p>Zebras live in herds.</p><p>The stripes of zebras confuse biting flies.</p>
<table><tr><th>Kind</th><th>Weight</th></tr><tr><td>Plains zebra</td><td>350 kg</td></tr></table>
<p>Read <a href="/more">more</a>.</p></main></body></html>"""


def test_a_page_is_read_without_its_scripts_and_navigation_but_with_its_links_and_tables() -> None:
    page = page_of(PAGE)
    assert page.title == "Zebra facts"
    assert "alert" not in page.text
    assert "zebra home" not in page.text
    assert "[more](/more)" in page.text
    assert "| Plains zebra | 350 kg |" in page.text


def test_the_passages_that_bear_on_the_goal_come_with_where_they_stand() -> None:
    text = page_of(PAGE).text
    (first, *_) = passages(text, "Why do zebras have stripes? flies", budget=60)
    assert "confuse biting flies" in first.text
    assert text[first.start : first.end] == first.text


def test_a_goal_that_the_page_does_not_serve_gives_no_passage() -> None:
    assert passages(page_of(PAGE).text, "quantum chromodynamics", budget=1000) == ()


@pytest.mark.parametrize("html", ["", "<", "<html>" * 2000, "\0\0", "<table><tr><td>", "plain words"])
def test_broken_html_is_read_as_far_as_it_goes(html: str) -> None:
    page_of(html)
