"""What a page says, and which passages of it bear on a goal. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

_WORD = re.compile(r"\w+")
_NOISE = ("script", "style", "noscript", "template", "svg", "iframe", "form", "nav", "header", "footer", "aside")
_K1, _B = 1.2, 0.75  # BM25's usual constants (Robertson and Zaragoza 2009, section 3.4)
_PASSAGE = 1200  # characters; longer paragraphs are cut


@dataclass(frozen=True)
class Page:
    """A page's title and its text as Markdown."""

    title: str
    text: str


@dataclass(frozen=True)
class Passage:
    """A piece of the page's text: characters [start, end)."""

    start: int
    end: int
    text: str
    score: float


def page_of(html: str) -> Page:
    """Title and main text: without scripts, navigation and the like; links and tables are kept as Markdown."""
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    soup = BeautifulSoup(html, "html.parser")
    title = soup.title.get_text(strip=True) if soup.title else ""
    for noise in soup(_NOISE):
        noise.decompose()
    body = soup.find("main") or soup.find("article") or soup.body or soup
    try:
        text = MarkdownConverter(heading_style="ATX", strip=["img"]).convert_soup(body)
    except RecursionError:
        # Nested a thousand deep, as no page for people is: its words are enough.
        text = body.get_text("\n")
    return Page(title, re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.splitlines())).strip() + "\n")


def passages(text: str, goal: str, *, budget: int) -> tuple[Passage, ...]:
    """The passages that bear most on the goal, in the order of the page; none if no word is common.

    Args:
        text: of the page.
        goal: what the reader wants to know.
        budget: characters at most, in all.
    """
    pieces = _pieces(text)
    words = {_stem(word) for word in _WORD.findall(goal.lower())}
    counts = [Counter(_stem(word) for word in _WORD.findall(piece.lower())) for _, piece in pieces]
    average = sum(count.total() for count in counts) / max(1, len(counts))
    rarity = {
        word: math.log(1 + (len(counts) - seen + 0.5) / (seen + 0.5))
        for word in words
        for seen in (sum(word in count for count in counts),)
    }
    scored = [
        Passage(start, start + len(piece), piece, _bm25(count, rarity, average))
        for (start, piece), count in zip(pieces, counts, strict=True)
    ]
    chosen: list[Passage] = []
    for passage in sorted(scored, key=lambda each: (-each.score, each.start)):
        if passage.score > 0 and len(passage.text) <= budget:
            chosen.append(passage)
            budget -= len(passage.text)
    return tuple(sorted(chosen, key=lambda each: each.start))


def _bm25(count: Counter[str], rarity: dict[str, float], average: float) -> float:
    length = _K1 * (1 - _B + _B * count.total() / (average or 1))
    return sum(
        weight * count[word] * (_K1 + 1) / (count[word] + length) for word, weight in rarity.items() if count[word]
    )


def _stem(word: str) -> str:
    """Plural and third person alike: enough to match a question's words with a page's."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _pieces(text: str) -> list[tuple[int, str]]:
    """Paragraphs with where they start; a heading goes with what follows it, a long one is cut."""
    found: list[tuple[int, str]] = []
    for match in re.finditer(r"(?:#[^\n]*\n\s*)*[^\n]+(?:\n(?!\s*\n)[^\n]+)*", text):
        piece = match[0]
        found += [(match.start() + i, piece[i : i + _PASSAGE]) for i in range(0, len(piece), _PASSAGE)]
    return found
