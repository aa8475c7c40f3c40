"""Each type of file is read; nothing outside the folder is, and no file can take the server down."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from PIL import Image
from pinnace.tools.servers.files import FileRefused, Root, Unreadable, read
from pinnace.tools.world.pdf import text_pdf


def word() -> bytes:
    document = docx.Document()
    document.add_paragraph("First paragraph")
    document.add_table(1, 2).rows[0].cells[1].text = "cell"
    return saved(document)


def excel() -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["name", "value"])
    book.active.append(["x", 42])
    book.create_sheet("Second").append(["other"])
    return saved(book)


def slides() -> bytes:
    presentation = pptx.Presentation()
    for text in ("Title one", "Title two"):
        presentation.slides.add_slide(presentation.slide_layouts[5]).shapes.title.text = text
    return saved(presentation)


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (30, 20)).save(stream, "PNG")
    return stream.getvalue()


def saved(document: object) -> bytes:
    stream = io.BytesIO()
    document.save(stream)  # type: ignore[attr-defined]
    return stream.getvalue()


FILES: list[tuple[str, bytes, str, int, str]] = [
    ("a.txt", "grüße".encode(), "text", 1, "grüße"),
    ("a.txt", b"\xef\xbb\xbfbom", "text", 1, "bom"),
    ("a.py", b"print(1)\n", "text", 1, "print(1)"),
    ("a.csv", b'a,b\n1,"x|y"\n', "csv", 1, "| 1 | x\\|y |"),
    ("a.tsv", b"a\tb\n1\t2\n", "tsv", 1, "| 1 | 2 |"),
    ("a.json", b'{"k": [1]}', "json", 1, '"k"'),
    ("a.html", b"<title>T</title><main><p>Hello</p></main>", "html", 1, "Hello"),
    ("a.pdf", text_pdf("T", [f"line {i}" for i in range(60)]), "pdf", 2, "line 45"),
    ("a.docx", word(), "docx", 1, "|  | cell |"),
    ("a.xlsx", excel(), "xlsx", 2, "| x | 42 |"),
    ("a.pptx", slides(), "pptx", 2, "Title one"),
    ("a.png", picture(), "image", 1, '"width": 30'),
    ("misnamed.txt", picture(), "image", 1, '"height": 20'),
    ("big.txt", b"word " * 20_000, "text", 5, "word"),
]


@pytest.mark.parametrize(("name", "content", "kind", "parts", "says"), FILES, ids=[f"{f[0]}-{f[2]}" for f in FILES])
def test_a_file_is_read_by_its_type(name: str, content: bytes, kind: str, parts: int, says: str) -> None:
    document = read(name, content)
    assert (document.type, len(document.parts)) == (kind, parts)
    assert says in document.parts[0]


def bomb(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"\0" * (40 << 20))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"\0\1\2", "binary"),
        ("a.json", b"{", "no JSON"),
        ("a.pdf", b"%PDF-1.4\ngarbage", "can't be read as pdf"),
        ("a.docx", b"PK\x03\x04garbage", "can't be read as docx"),
        ("a.png", b"\x89PNGgarbage", "can't be read as image"),
        ("a.docx", bomb("word/document.xml"), "would unpack to"),
        ("a.xlsx", bomb("xl/workbook.xml"), "would unpack to"),
    ],
)
def test_a_damaged_or_hostile_file_is_refused_by_name(name: str, content: bytes, message: str) -> None:
    with pytest.raises(Unreadable, match=message) as error:
        read(name, content)
    assert str(error.value).startswith(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, and everything around it that must not be read."""
    (tmp_path / "secret.txt").write_text("secret")
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "sub" / "a.txt").write_text("fine")
    (inside / "link.txt").symlink_to(tmp_path / "secret.txt")
    (inside / "linked").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe")
    return inside


@pytest.mark.parametrize(
    "path",
    [
        *(
            "../secret.txt",
            "sub/../../secret.txt",
            "/etc/passwd",
            "link.txt",
            "linked/secret.txt",
            "sub/./../../secret.txt",
        ),
        *("pipe", "sub", "", ".", "..", "missing.txt", "sub/a.txt/b", "a\0b", "~/x", "x" * 300),
    ],
)
def test_no_path_leads_out_of_the_folder(folder: Path, path: str) -> None:
    with pytest.raises((FileRefused, Unreadable)):
        Root(folder).bytes_of(path)


def test_a_file_that_is_not_there_is_no_refusal(folder: Path) -> None:
    with pytest.raises(Unreadable, match="use list_documents"):
        Root(folder).bytes_of("sub/missing.txt")


def test_what_is_in_the_folder_is_listed_without_links_and_read(folder: Path) -> None:
    root = Root(folder)
    assert list(root.entries()) == [("sub/a.txt", 4)]
    assert root.bytes_of("sub/a.txt") == b"fine"
    assert root.bytes_of("./sub//a.txt") == b"fine"


async def test_the_server_reads_finds_and_refuses_over_stdio(folder: Path) -> None:
    (folder / "r.pdf").write_bytes(text_pdf("Report", ["intro"] * 50 + ["the needle"]))
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "pinnace.tools.servers.files", str(folder)])
    async with Client(stdio_client(parameters)) as client:
        listed = await client.call_tool("list_documents", {})
        page = await client.call_tool("read_document", {"path": "r.pdf", "part": 2})
        found = await client.call_tool("find_in_document", {"path": "r.pdf", "words": "NEEDLE"})
        about = await client.call_tool("describe_document", {"path": "r.pdf"})
        beyond = await client.call_tool("read_document", {"path": "r.pdf", "part": 3})
        outside = await client.call_tool("read_document", {"path": "../secret.txt"})
    assert "r.pdf" in listed.content[0].text
    assert "the needle" in page.content[0].text
    assert found.content[0].text == "page 2: the needle"
    assert json.loads(about.content[0].text)["parts"] == 2
    assert beyond.is_error
    assert (outside.meta or {})["pinnace.dev/outcome"] == "denied"
