"""`python -m pinnace.tools.servers.files FOLDER`: reading the files of one folder, over stdio."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from pinnace.tools.outcome import Outcome
from pinnace.tools.servers.answer import answered, failed
from pinnace.tools.servers.files import Document, FileRefused, Root, Unreadable, read

server = MCPServer("files", version="1")
READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)
FilePath = Annotated[str, Field(min_length=1, max_length=1000, description="path relative to the folder")]
_MOST_MATCHES = 30
_WIDTH = 300


def root() -> Root:
    """The folder of the command line."""
    return Root(Path(sys.argv[1]))


async def _read(path: str) -> Document | CallToolResult:
    """Off the event loop: a large PDF takes seconds."""
    try:
        content = await asyncio.to_thread(root().bytes_of, path)
        return await asyncio.to_thread(read, path, content)
    except FileRefused as error:
        return failed(Outcome.DENIED, str(error))
    except Unreadable as error:
        return failed(Outcome.TOOL_ERROR, str(error))


@server.tool(annotations=READ_ONLY)
async def list_documents(
    path: Annotated[str, Field(max_length=1000, description="folder, relative; empty for all")] = "",
) -> CallToolResult:
    """List the files in the folder and those below it, with their sizes."""
    try:
        files = await asyncio.to_thread(lambda: list(root().entries(path)))
    except FileRefused as error:
        return failed(Outcome.DENIED, str(error))
    except Unreadable as error:
        return failed(Outcome.TOOL_ERROR, str(error))
    text = "\n".join(f"{name}  {size} bytes" for name, size in files)
    return answered(text or "There are no files.", {"files": [{"path": name, "bytes": size} for name, size in files]})


@server.tool(annotations=READ_ONLY)
async def read_document(
    path: FilePath, part: Annotated[int, Field(ge=1, description="page, sheet, slide or part, from 1")] = 1
) -> CallToolResult:
    """Read a file, one page, sheet, slide or part at a time.

    Text, CSV, JSON, HTML, PDF, Word, Excel, PowerPoint; of an image its metadata, of a zip archive the names in it.
    """
    document = await _read(path)
    if isinstance(document, CallToolResult):
        return document
    count = len(document.parts)
    if part > count:
        return failed(Outcome.TOOL_ERROR, f"{path} has {count} {document.unit}s, not a {document.unit} {part}")
    note = f"\n\n({document.unit} {part} of {count})" if count > 1 else ""
    return answered(
        document.parts[part - 1] + note, {"type": document.type, "part": part, "parts": count, "unit": document.unit}
    )


@server.tool(annotations=READ_ONLY)
async def describe_document(path: FilePath) -> CallToolResult:
    """Say what a file is: its type, how many parts it has, and what is known about it."""
    document = await _read(path)
    if isinstance(document, CallToolResult):
        return document
    about = {"type": document.type, "parts": len(document.parts), "unit": document.unit, **document.about}
    about["characters"] = sum(len(part) for part in document.parts)
    return answered(
        json.dumps(about, indent=1, ensure_ascii=False, default=str), json.loads(json.dumps(about, default=str))
    )


@server.tool(annotations=READ_ONLY)
async def find_in_document(
    path: FilePath, words: Annotated[str, Field(min_length=1, max_length=200, description="words as they stand in it")]
) -> CallToolResult:
    """Find words in a file. Returns the lines that have them and the page, sheet, slide or part each is in."""
    document = await _read(path)
    if isinstance(document, CallToolResult):
        return document
    wanted = words.casefold()
    hits = [
        (number, line.strip()[:_WIDTH])
        for number, part in enumerate(document.parts, 1)
        for line in part.splitlines()
        if wanted in line.casefold()
    ]
    text = "\n".join(f"{document.unit} {number}: {line}" for number, line in hits[:_MOST_MATCHES])
    return answered(text or f"{path} does not have these words: {words}", {"total": len(hits)})


if __name__ == "__main__":
    server.run("stdio")
