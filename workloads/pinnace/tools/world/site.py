"""A whole world: every document by its path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

from pinnace.tools.world.blocks import Block, Link, Links, Paragraph, Table, to_html, to_plain, to_text
from pinnace.tools.world.errors import NoSuchPage
from pinnace.tools.world.facts import region_path, values_of
from pinnace.tools.world.graph import Entity, Graph, Kind, build_islands, joined
from pinnace.tools.world.pdf import text_pdf
from pinnace.tools.world.prose import blocks_of, note_blocks, note_title, padding, report_lines
from pinnace.tools.world.rng import Rng

HOST = "world.test"  # RFC 6761 §6.2 keeps .test free of real names
ORIGIN = f"http://{HOST}"
_LISTED = 60  # entries on one page of a list
_SMALLEST = 100
_MOST_NOISE, _MOST_LENGTH = 20, 50


@dataclass(frozen=True)
class Document:
    """One page or PDF. `text` is what the tools return, `plain` what is indexed."""

    path: str
    title: str
    text: str
    plain: str
    body: bytes = field(repr=False)
    content_type: str = "text/html; charset=utf-8"

    @property
    def url(self) -> str:
        """Its address on the world's web."""
        return ORIGIN + self.path


@dataclass(frozen=True)
class World:
    """A seed's world. Equal seeds and sizes give equal bytes, on every machine."""

    seed: int
    islands: tuple[Graph, ...]
    documents: dict[str, Document] = field(repr=False)

    @cached_property
    def graph(self) -> Graph:
        """All islands together."""
        return joined(self.islands)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every path and body."""
        digest = hashlib.sha256()
        for path, document in sorted(self.documents.items()):
            digest.update(f"{path}\0{len(document.body)}\0".encode() + document.body)
        return f"sha256:{digest.hexdigest()}"

    def at(self, address: str) -> Document:
        """The document at a path or an address of this world (`/people/…` or `http://world.test/people/…`).

        Raises:
            NoSuchPage: Nothing is there.
        """
        path = address.strip().removeprefix(ORIGIN).removeprefix(f"https://{HOST}").partition("#")[0].partition("?")[0]
        found = self.documents.get(path or "/") or self.documents.get(path.rstrip("/"))
        if found is None:
            raise NoSuchPage(f"{address}: no such page; take an address from `search` or from a link on a page")
        return found


def build(*, seed: int = 0, pages: int = 3000, islands: int = 3, noise: int = 0, length: int = 1) -> World:
    """A world.

    Args:
        seed: what it is made from.
        pages: about how many documents state its facts; at least 100.
        islands: parts between which there is no link; fewer where not each would have 100 pages. Scout's splits are
            islands, so that they have nothing in common.
        noise: further pages about each entity that use the words of its facts and state none.
        length: how many paragraphs stand where one would.

    Raises:
        ValueError: an argument is out of range.
    """
    if pages < _SMALLEST or islands < 1:
        raise ValueError(f"a world has at least {_SMALLEST} pages and one island, not {pages} and {islands}")
    if not (0 <= noise <= _MOST_NOISE and 1 <= length <= _MOST_LENGTH):
        raise ValueError(f"noise is 0 to {_MOST_NOISE}, length 1 to {_MOST_LENGTH}, not {noise} and {length}")
    # A company and a paper have a PDF beside their page, so 100 entities make about 135 documents.
    parts = build_islands(seed=seed, size=pages * 100 // 135, islands=min(islands, pages // _SMALLEST))
    graph = joined(parts)
    documents = [_page(entity.path, entity.name, blocks_of(entity, seed, length)) for entity in graph.entities()]
    documents += [_note(entity, part, seed, number) for part in parts for entity in part.entities()
                  for number in range(noise)]  # fmt: skip
    documents += [
        _report(entity, seed)
        for entity in graph.entities()
        if any(value.where == "pdf" for value in values_of(entity.kind))
    ]
    documents += [_region(name, towns, seed) for name, towns in graph.regions.items()]
    for kind, entities in zip(Kind, _by_kind(graph), strict=True):
        documents += _lists(kind, entities)
    documents.append(_home(graph))
    return World(seed, parts, {document.path: document for document in documents})


def _by_kind(graph: Graph) -> tuple[tuple[Entity, ...], ...]:
    return graph.people, graph.places, graph.companies, graph.events, graph.papers


def _page(path: str, title: str, blocks: tuple[Block, ...]) -> Document:
    html = to_html(title, blocks)
    return Document(path, title, to_text(title, blocks), to_plain(blocks), html.encode())


def _note(entity: Entity, island: Graph, seed: int, number: int) -> Document:
    title = note_title(entity, number)
    return _page(f"/notes/{entity.slug}-{number + 1}", title, note_blocks(entity, island, seed, number))


def _report(entity: Entity, seed: int) -> Document:
    title = f"{entity.name}: {'annual report' if entity.kind is Kind.COMPANY else 'full paper'}"
    lines = report_lines(entity, seed)
    text = "\n".join(lines)
    body = text_pdf(title, lines)
    return Document(f"/files/{entity.slug}.pdf", title, f"# {title}\n\n{text}\n", text, body, "application/pdf")


def _region(name: str, towns: tuple[Entity, ...], seed: int) -> Document:
    columns = ("population", "elevation", "founded")
    rows = tuple((town.name, *(str(town.values[column]) for column in columns)) for town in towns)
    head = ("Town", "Population", "Elevation (m)", "Founded")
    links = Links(tuple(Link(town.name, town.path) for town in towns))
    rng = Rng(seed, "region", name)
    return _page(region_path(name), f"Towns of {name}", (padding(rng), Table(head, rows), padding(rng), links))


def _lists(kind: Kind, entities: tuple[Entity, ...]) -> list[Document]:
    """Alphabetical lists of a kind's pages, linked to each other."""
    ordered = sorted(entities, key=lambda entity: entity.name)
    chunks = [ordered[i : i + _LISTED] for i in range(0, len(ordered), _LISTED)]
    pages = []
    for number, chunk in enumerate(chunks, 1):
        blocks: list[Block] = [Links(tuple(Link(entity.name, entity.path) for entity in chunk))]
        if number < len(chunks):
            blocks.append(Paragraph((Link("Next page", f"/lists/{kind}/{number + 1}"),)))
        pages.append(_page(f"/lists/{kind}/{number}", f"List of {kind}, page {number}", tuple(blocks)))
    return pages


def _home(graph: Graph) -> Document:
    lists = Links(tuple(Link(f"All {kind}", f"/lists/{kind}/1") for kind in Kind))
    regions = Links(tuple(Link(f"Towns of {name}", region_path(name)) for name in graph.regions))
    return _page("/", "The offline world", (lists, regions))
