"""Reading a document in pages and finding words in it: what the tools `open` and `find` do."""

from __future__ import annotations

from dataclasses import dataclass

from pinnace.tools.world.errors import NoSuchPage
from pinnace.tools.world.site import Document

PAGE = 3000  # characters; pages end at ends of lines
_MOST_MATCHES = 20


@dataclass(frozen=True)
class Opened:
    """A page of a document, counted from 1."""

    url: str
    title: str
    page: int
    pages: int
    text: str


@dataclass(frozen=True)
class Match:
    """A line with the words, and the page of the document that it stands on."""

    page: int
    line: str


@dataclass(frozen=True)
class Found:
    """Lines with the words, in order; `total` counts all of them."""

    url: str
    total: int
    matches: tuple[Match, ...]


def open_page(document: Document, page: int = 1) -> Opened:
    """A page of the document's text.

    Raises:
        NoSuchPage: It has fewer pages.
    """
    pages = _pages(document.text)
    if not 1 <= page <= len(pages):
        raise NoSuchPage(f"{document.url} has {len(pages)} pages, not a page {page}")
    return Opened(document.url, document.title, page, len(pages), pages[page - 1])


def find(document: Document, words: str, *, start: int = 0) -> Found:
    """Lines that contain `words` (any case), from the match number `start` on, at most twenty.

    Raises:
        ValueError: No words are given.
    """
    wanted = words.strip().casefold()
    if not wanted:
        raise ValueError("say which words to look for")
    matches = [
        Match(number, line)
        for number, page in enumerate(_pages(document.text), 1)
        for line in page.splitlines()
        if wanted in line.casefold()
    ]
    return Found(document.url, len(matches), tuple(matches[start : start + _MOST_MATCHES]))


def _pages(text: str) -> list[str]:
    pages: list[str] = []
    page: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        if page and size + len(line) > PAGE:
            pages.append("".join(page))
            page, size = [], 0
        page.append(line)
        size += len(line)
    pages.append("".join(page))
    return pages
