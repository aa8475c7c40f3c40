"""What is in a file, by its type: text in parts (pages, sheets, slides), as a model can read it."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pinnace.tools.servers.files.errors import Unreadable

_MOST_UNPACKED = 256 << 20
_MOST_RATIO = 200  # a zip bomb packs a thousand to one; office files rarely more than twenty
_MOST_ROWS = 20_000
_CHUNK = 20_000  # characters of one part of a plain text


@dataclass(frozen=True)
class Document:
    """A file's type, what is known about it, and its text in parts; `unit` says what a part is."""

    type: str
    unit: str
    parts: tuple[str, ...]
    about: dict[str, Any]


def read(name: str, content: bytes) -> Document:
    """Reads a file by its name's ending and its first bytes.

    Raises:
        Unreadable: It is damaged, encrypted, a zip bomb, or of no type that can be read here.
    """
    kind = _kind(PurePosixPath(name).suffix.lower().lstrip("."), content)
    try:
        return _READERS[kind](content)
    except Unreadable as error:
        raise Unreadable(f"{name}: {error}") from None
    except Exception as error:
        # Parsers of foreign formats raise whatever they like at damaged input.
        raise Unreadable(f"{name} can't be read as {kind}: {type(error).__name__}: {error}") from error


def _kind(suffix: str, content: bytes) -> str:
    if content.startswith(b"%PDF-"):
        return "pdf"
    if (
        content.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*"))
        or content[8:12] == b"WEBP"
    ):
        return "image"
    if content.startswith(b"PK\x03\x04"):
        return suffix if suffix in {"docx", "xlsx", "pptx"} else "zip"
    if suffix in {"csv", "tsv", "json", "jsonl", "html", "htm"}:
        return {"htm": "html"}.get(suffix, suffix)
    return "text"


def _text_of(content: bytes) -> str:
    if b"\0" in content[:4096]:
        raise Unreadable("it is binary, of a type that can't be read here")
    return content.decode("utf-8-sig", errors="replace")


def _chunks(text: str) -> tuple[str, ...]:
    """Parts of about 20,000 characters that end at ends of lines."""
    parts: list[str] = []
    part: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        for piece in (line[i : i + _CHUNK] for i in range(0, len(line), _CHUNK)):
            if part and size + len(piece) > _CHUNK:
                parts.append("".join(part))
                part, size = [], 0
            part.append(piece)
            size += len(piece)
    return (*parts, "".join(part))


def _text(content: bytes) -> Document:
    text = _text_of(content)
    return Document("text", "part", _chunks(text), {"lines": len(text.splitlines())})


def _json(content: bytes) -> Document:
    try:
        value = json.loads(_text_of(content))
    except ValueError as error:
        raise Unreadable(f"it is no JSON: {error}") from None
    about = {"top": type(value).__name__, "keys": list(value)[:50] if isinstance(value, dict) else None}
    return Document("json", "part", _chunks(json.dumps(value, indent=1, ensure_ascii=False)), about)


def _separated(separator: str, kind: str) -> Callable[[bytes], Document]:
    def reader(content: bytes) -> Document:
        rows = list(csv.reader(io.StringIO(_text_of(content)), delimiter=separator))
        return Document(kind, "part", _chunks(_table(rows)), {"rows": len(rows), "columns": rows[0] if rows else []})

    return reader


def _table(rows: list[list[str]]) -> str:
    """As Markdown, at most 20,000 rows."""
    lines = [
        "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in row) + " |"
        for row in rows[:_MOST_ROWS]
    ]
    if lines:
        lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


def _html(content: bytes) -> Document:
    from pinnace.tools.servers.web.extract import page_of

    page = page_of(_text_of(content))
    return Document("html", "part", _chunks(page.text), {"title": page.title})


def _pdf(content: bytes) -> Document:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(content))
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("it is encrypted")
    title = reader.metadata.title if reader.metadata else None
    return Document("pdf", "page", tuple(page.extract_text() for page in reader.pages), {"title": title})


def _checked(content: bytes) -> io.BytesIO:
    """An office file, which is a zip archive, if it unpacks to a size in reason."""
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream) as archive:
        unpacked = sum(each.file_size for each in archive.infolist())
        if unpacked > min(_MOST_UNPACKED, max(10 << 20, len(content) * _MOST_RATIO)):
            raise Unreadable(f"it would unpack to {unpacked} bytes")
    return stream


def _docx(content: bytes) -> Document:
    import docx
    from docx.table import Table

    document = docx.Document(_checked(content))
    lines = [
        _table([[cell.text for cell in row.cells] for row in block.rows]) if isinstance(block, Table) else block.text
        for block in document.iter_inner_content()
    ]
    properties = document.core_properties
    return Document(
        "docx", "part", _chunks("\n\n".join(lines)), {"title": properties.title, "author": properties.author}
    )


def _xlsx(content: bytes) -> Document:
    import openpyxl

    book = openpyxl.load_workbook(_checked(content), read_only=True, data_only=True)
    parts = []
    for sheet in book.worksheets:
        rows = [
            ["" if cell is None else str(cell) for cell in row]
            for row in sheet.iter_rows(values_only=True, max_row=_MOST_ROWS, max_col=200)
        ]
        parts.append(f"## {sheet.title}\n\n{_table(rows)}")
    return Document("xlsx", "sheet", tuple(parts), {"sheets": book.sheetnames})


def _pptx(content: bytes) -> Document:
    import pptx

    presentation = pptx.Presentation(_checked(content))
    parts = tuple(
        "\n".join(shape.text_frame.text for shape in slide.shapes if shape.has_text_frame)
        for slide in presentation.slides
    )
    return Document("pptx", "slide", parts, {"slides": len(parts)})


def _image(content: bytes) -> Document:
    from PIL import ExifTags, Image

    # Only the header is read: no pixels, so no decompression bomb.
    with Image.open(io.BytesIO(content)) as image:
        exif = {ExifTags.TAGS.get(tag, str(tag)): str(value)[:200] for tag, value in image.getexif().items()}
        about = {"format": image.format, "width": image.width, "height": image.height, "mode": image.mode, "exif": exif}
    return Document("image", "part", (json.dumps(about, indent=1),), about)


def _zip(content: bytes) -> Document:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [f"{each.filename}  {each.file_size} bytes" for each in archive.infolist()[:_MOST_ROWS]]
    return Document("zip", "part", _chunks("\n".join(names)), {"entries": len(names)})


_READERS: dict[str, Callable[[bytes], Document]] = {
    "text": _text,
    "json": _json,
    "jsonl": _text,
    "csv": _separated(",", "csv"),
    "tsv": _separated("\t", "tsv"),
    "html": _html,
    "pdf": _pdf,
    "docx": _docx,
    "xlsx": _xlsx,
    "pptx": _pptx,
    "image": _image,
    "zip": _zip,
}
