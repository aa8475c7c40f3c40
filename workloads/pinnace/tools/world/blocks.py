"""Pages as blocks, and the two forms they are read in: HTML for a browser or a fetch, text for a model."""

from __future__ import annotations

import html
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """A link within a paragraph or list."""

    text: str
    path: str


@dataclass(frozen=True)
class Paragraph:
    """Words and links, in order."""

    runs: tuple[str | Link, ...]


@dataclass(frozen=True)
class Heading:
    """A heading below the title."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; every row has as many cells as the head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Links:
    """A list of links."""

    items: tuple[Link, ...]


Block = Paragraph | Heading | Table | Links


def to_text(title: str, blocks: tuple[Block, ...]) -> str:
    """Markdown: the form that the tools return. One paragraph, row or item is one line."""
    parts = [f"# {title}", *(_text(block) for block in blocks)]
    return "\n\n".join(parts) + "\n"


def to_plain(blocks: tuple[Block, ...]) -> str:
    """Words only, without the addresses of links: what is indexed and what snippets are cut from."""
    parts = []
    for block in blocks:
        match block:
            case Paragraph(runs):
                parts.append("".join(run if isinstance(run, str) else run.text for run in runs))
            case Heading(text):
                parts.append(text)
            case Table(head, rows):
                parts += [" ".join(row) for row in (head, *rows)]
            case Links(items):
                parts += [item.text for item in items]
    return "\n".join(parts)


def to_html(title: str, blocks: tuple[Block, ...]) -> str:
    """A whole HTML document; links are relative to the site's root."""
    body = "\n".join(_html(block) for block in blocks)
    safe = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{safe}</title></head>\n'
        f'<body><nav><a href="/">Home</a></nav>\n<main><h1>{safe}</h1>\n{body}\n</main></body></html>\n'
    )


def _text(block: Block) -> str:
    match block:
        case Paragraph(runs):
            return "".join(run if isinstance(run, str) else f"[{run.text}]({run.path})" for run in runs)
        case Heading(text):
            return f"## {text}"
        case Table(head, rows):
            lines = [head, ("---",) * len(head), *rows]
            return "\n".join("| " + " | ".join(line) + " |" for line in lines)
        case Links(items):
            return "\n".join(f"- [{item.text}]({item.path})" for item in items)


def _anchor(link: Link) -> str:
    return f'<a href="{html.escape(link.path)}">{html.escape(link.text)}</a>'


def _cells(tag: str, row: tuple[str, ...]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"


def _html(block: Block) -> str:
    match block:
        case Paragraph(runs):
            return "<p>" + "".join(html.escape(r) if isinstance(r, str) else _anchor(r) for r in runs) + "</p>"
        case Heading(text):
            return f"<h2>{html.escape(text)}</h2>"
        case Table(head, rows):
            body = "\n".join(_cells("td", row) for row in rows)
            return f"<table>\n{_cells('th', head)}\n{body}\n</table>"
        case Links(items):
            return "<ul>\n" + "\n".join(f"<li>{_anchor(item)}</li>" for item in items) + "\n</ul>"
