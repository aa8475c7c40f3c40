"""The offline world is the same everywhere, hangs together, and its questions can be answered by reading it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from pinnace.tools.world import Index, NoSuchPage, Question, World, build, is_right, open_page, questions
from pypdf import PdfReader

SIZE = 600
# Changing what the world says changes every benchmark and every reward that was measured on it: do it knowingly.
DIGEST = "sha256:e96319f282d5676566668f07cc0f3fc22d379d16ba8213ad6a7e2274ef8dd1f2"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    yield build(seed=7, pages=SIZE)


@pytest.fixture(scope="module")
def index(world: World) -> Index:
    return Index(world)


def test_a_seed_gives_the_same_bytes_on_every_machine_and_in_every_process(world: World) -> None:
    assert world.digest == DIGEST
    code = f"from pinnace.tools.world import build; print(build(seed=7, pages={SIZE}).digest)"
    for hash_seed in ("1", "2"):
        environment = dict(os.environ) | {"PYTHONHASHSEED": hash_seed, "TZ": "Asia/Tokyo", "LC_ALL": "C"}
        said = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
        ).stdout
        assert said.strip() == DIGEST


def test_another_seed_is_another_world(world: World) -> None:
    other = build(seed=8, pages=SIZE)
    assert other.digest != world.digest
    assert len(set(other.documents) & set(world.documents)) < 20


@pytest.mark.parametrize("pages", [100, 600, 3000])
def test_a_world_has_about_as_many_pages_as_it_should(pages: int) -> None:
    assert abs(len(build(seed=1, pages=pages).documents) - pages) <= pages // 10


def test_every_link_leads_to_a_page(world: World) -> None:
    targets = {
        target for document in world.documents.values() for target in re.findall(r"\]\((/[^)]*)\)", document.text)
    }
    targets |= {t for d in world.documents.values() for t in re.findall(r'href="(/[^"]*)"', d.body.decode("latin-1"))}
    assert targets
    assert not [target for target in targets if target not in world.documents]


def test_every_page_can_be_reached_from_the_first(world: World) -> None:
    seen, queue = {"/"}, ["/"]
    while queue:
        for target in re.findall(r"\]\((/[^)]*)\)", world.documents[queue.pop()].text):
            if target not in seen:
                seen.add(target)
                queue.append(target)
    assert seen == set(world.documents)


def test_facts_do_not_contradict_each_other_in_time(world: World) -> None:
    for company in world.graph.companies:
        assert company.number("founded") - company.links["founder"].number("born") >= 20
    for event in world.graph.events:
        assert event.links["organiser"].number("founded") <= event.number("year")
        assert event.links["winner"].number("born") <= event.number("year") - 18
        assert event.name.endswith(str(event.number("year")))
    for paper in world.graph.papers:
        assert paper.number("year") == paper.links["event"].number("year")
    for place in world.graph.places:
        assert place.links["twin"] is not place


def test_the_pdfs_are_pdfs_and_say_what_the_tools_say(world: World) -> None:
    pdfs = [document for document in world.documents.values() if document.path.endswith(".pdf")]
    assert len(pdfs) > SIZE // 8
    for document in pdfs[:20]:
        text = "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(document.body), strict=True).pages)
        assert [line for line in text.splitlines() if line.strip()] == [
            line for line in document.plain.splitlines() if line
        ]


def read(world: World, url: str) -> str:
    """All pages of a document as a model reads them, links as their words."""
    document = world.at(url)
    pages = [open_page(document, i).text for i in range(1, open_page(document).pages + 1)]
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", "".join(pages))


@pytest.mark.parametrize("hops", [1, 2, 3, 5, 8])
def test_every_question_is_answered_by_following_its_evidence_with_the_tools(
    world: World, index: Index, hops: int
) -> None:
    for question in questions(world, seed=3, n=40, hops=hops):
        assert question.hops == hops
        for step in question.path:
            found = [hit.url for hit in index.search(step.query, size=5).hits]
            pages = "".join(world.at(url).text for url in found)
            assert step.url in found or step.url.removeprefix("http://world.test") in pages, (question.text, step)
            assert step.statement in read(world, step.url), (question.text, step)
            assert step.obtains in step.statement, (question.text, step)
        assert is_right(question, concluded(question, world)), question


def concluded(question: Question, world: World) -> str:
    """The answer from what the evidence says, worked out here."""
    one, two = question.path[-1], question.path[-2:]
    if question.kind == "comparison":
        return min(two, key=lambda step: int(step.obtains)).statement.split(" was ")[0]
    if question.kind == "table":
        rows = [line.strip("| ").split(" | ") for line in read(world, one.url).splitlines() if line.startswith("| ")][
            2:
        ]
        return (max if "most" in question.text else min)(rows, key=lambda row: int(row[1]))[0]
    return one.obtains


def test_chains_are_connected_each_step_gives_what_the_next_one_reads(world: World) -> None:
    chains = [question for question in questions(world, seed=5, n=60, hops=4) if question.kind == "chain"]
    assert len(chains) > 20
    for question in chains:
        for one, two in zip(question.path, question.path[1:], strict=False):
            assert one.obtains in world.at(two.url).title + two.statement, question


def test_a_question_does_not_say_its_own_answer(world: World) -> None:
    for hops in (1, 3):
        for question in questions(world, seed=9, n=100, hops=hops):
            if question.kind != "comparison":
                assert question.answer.casefold() not in question.text.casefold(), question


def test_questions_are_different_reproducible_and_a_prefix_of_more(world: World) -> None:
    many = questions(world, seed=1, n=100, hops=3)
    assert len({question.text for question in many}) == 100
    assert questions(world, seed=1, n=10, hops=3) == many[:10]
    assert questions(world, seed=2, n=10, hops=3) != many[:10]
    assert {question.kind for question in many} == {"chain", "comparison"}


def test_answers_are_judged_by_meaning_not_by_spelling_of_numbers(world: World) -> None:
    question = next(q for q in questions(world, seed=1, n=200, hops=2) if q.answer.isdigit() and len(q.answer) >= 5)
    grouped = f"{int(question.answer):,}"
    assert is_right(question, f" {grouped}. ")
    assert is_right(question, grouped.replace(",", " "))
    assert not is_right(question, question.answer + "0")
    assert not is_right(question, "")


def test_long_documents_come_in_pages_that_add_up(world: World) -> None:
    longest = max(world.documents.values(), key=lambda document: len(document.text))
    first = open_page(longest)
    assert first.pages > 1
    assert "".join(open_page(longest, i).text for i in range(1, first.pages + 1)) == longest.text
    with pytest.raises(NoSuchPage, match="pages, not a page"):
        open_page(longest, first.pages + 1)


def test_pages_of_results_do_not_overlap_and_end(index: Index) -> None:
    first, second = index.search("founded headquarters"), index.search("founded headquarters", page=2)
    assert first.total > 20
    assert not {hit.url for hit in first.hits} & {hit.url for hit in second.hits}
    assert index.search("founded headquarters", page=1 + -(-first.total // 10)).hits == ()


@pytest.mark.parametrize("query", ["", "???", '"quotes" AND (NEAR', "zzzzqqq", "the of and", "' OR 1=1 --", "a" * 5000])
def test_no_query_breaks_the_index(index: Index, query: str) -> None:
    results = index.search(query)
    assert results.total >= len(results.hits)


async def test_the_tools_serve_the_world_over_stdio(tmp_path: Path) -> None:
    given = {"PATH": os.environ["PATH"], "PINNACE_WORLD_SEED": "7", "PINNACE_WORLD_PAGES": str(SIZE)}
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "pinnace.tools.servers.world"], env=given)
    here = build(seed=7, pages=SIZE)
    question = questions(here, seed=1, n=1, hops=3)[0]
    async with Client(stdio_client(parameters)) as client:
        for step in question.path:
            found = await client.call_tool("find", {"url": step.url, "words": step.obtains})
            assert step.obtains in found.content[0].text
        opened = await client.call_tool("open", {"url": question.path[0].url})
        missing = await client.call_tool("open", {"url": "http://world.test/people/nobody"})
        searched = await client.call_tool("search", {"query": question.path[0].query})
    assert not opened.is_error
    assert missing.is_error
    assert "take an address from `search`" in missing.content[0].text
    assert question.path[0].url in searched.content[0].text
