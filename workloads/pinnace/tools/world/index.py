"""The world's search engine: SQLite FTS5 with BM25 (docs/catalogue.md says what it was measured against)."""

from __future__ import annotations

import re
import sqlite3
import threading
from dataclasses import dataclass

from pinnace.tools.world.site import Document, World

_WORD = re.compile(r"[0-9a-z]+")
# Words that are in most questions and on most pages say nothing about which page is meant.
_COMMON = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "how",
        "in",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "that",
        "the",
        "this",
        "to",
        "was",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "whom",
        "whose",
        "why",
        "will",
        "with",
    ]
)
_SNIPPET = 240  # characters
_TITLE_WEIGHT = 6.0
PAGE_SIZE = 10


@dataclass(frozen=True)
class Hit:
    """One result. `snippet` is the passage with most of the query's words."""

    url: str
    title: str
    snippet: str


@dataclass(frozen=True)
class Results:
    """One page of results; `total` counts all of them."""

    query: str
    page: int
    total: int
    hits: tuple[Hit, ...]


class Index:
    """An index in memory over all documents of a world. May be used from several threads."""

    def __init__(self, world: World) -> None:
        self._documents = tuple(world.documents.values())
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute("CREATE VIRTUAL TABLE pages USING fts5(title, body, tokenize='unicode61', content='')")
        self._db.executemany(
            "INSERT INTO pages(rowid, title, body) VALUES (?, ?, ?)",
            ((i, document.title, document.plain) for i, document in enumerate(self._documents)),
        )
        self._db.commit()

    def search(self, query: str, *, page: int = 1, size: int = PAGE_SIZE) -> Results:
        """The documents with any of the query's words, best first; none for a query without a telling word.

        Raises:
            ValueError: `page` or `size` is not positive.
        """
        if page < 1 or size < 1:
            raise ValueError("page and size count from 1")
        words = _telling(query)
        if not words:
            return Results(query, page, 0, ())
        match = " OR ".join(f'"{word}"' for word in words)
        with self._lock:
            total = self._db.execute("SELECT count(*) FROM pages WHERE pages MATCH ?", (match,)).fetchone()[0]
            rows = self._db.execute(
                # rowid last: equal scores are in a fixed order.
                "SELECT rowid FROM pages WHERE pages MATCH ? ORDER BY bm25(pages, ?, 1.0), rowid LIMIT ? OFFSET ?",
                (match, _TITLE_WEIGHT, size, (page - 1) * size),
            ).fetchall()
        return Results(query, page, int(total), tuple(_hit(self._documents[row[0]], frozenset(words)) for row in rows))


def _telling(query: str) -> list[str]:
    """The query's words without the common ones (all of them if there are no others), each once."""
    words = list(dict.fromkeys(_WORD.findall(query.lower())))
    return [word for word in words if word not in _COMMON] or words


def _hit(document: Document, words: frozenset[str]) -> Hit:
    lines = document.plain.splitlines() or [""]
    best = max(lines, key=lambda line: len(words.intersection(_WORD.findall(line.lower()))))
    snippet = best if len(best) <= _SNIPPET else best[: _SNIPPET - 1] + "…"
    return Hit(document.url, document.title, snippet)
