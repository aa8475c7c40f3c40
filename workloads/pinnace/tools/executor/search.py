"""Looks around in the workspace: list, find by name, search in text."""

from __future__ import annotations

import fnmatch
import re
import time
from itertools import islice

from pinnace.tools.executor.workspace import Entry, FileProblem, Workspace

_SCANNED = 50_000
_LARGEST = 4 * 1024 * 1024
_LINE = 400


def list_files(workspace: Workspace, *, path: str, depth: int, limit: int) -> str:
    """One line an entry: size, time, name; folders end with a slash, links show that they are links."""
    entries = list(islice(workspace.walk(path, depth), limit + 1))
    lines = [_line(entry) for entry in entries[:limit]]
    if len(entries) > limit:
        lines.append(f"[… more than {limit} entries; ask for a folder below or raise limit]")
    return "\n".join(lines) or "[empty]"


def find_files(workspace: Workspace, *, pattern: str, path: str, limit: int) -> str:
    """Paths that match a glob: against the whole path where the pattern has a slash, else against the name."""
    whole = "/" in pattern
    matched = (
        entry.path + ("/" if entry.is_folder else "")
        for entry in islice(workspace.walk(path), _SCANNED)
        if fnmatch.fnmatchcase(entry.path if whole else entry.path.rpartition("/")[2], pattern)
    )
    return _cut(list(islice(matched, limit + 1)), limit)


def grep(workspace: Workspace, *, pattern: str, path: str, glob: str, ignore_case: bool, limit: int) -> str:
    """`path:line: text` of lines that match a regular expression; binary files and those over 4 MiB are passed over."""
    try:
        wanted = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except (re.error, RecursionError, OverflowError) as error:
        raise FileProblem("invalid", f"pattern is no regular expression of Python: {error}") from error
    found: list[str] = []
    for name in _candidates(workspace, path, glob):
        try:
            data = workspace.read(name, _LARGEST)
        except FileProblem:
            continue
        if b"\0" in data[:8192]:
            continue
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            if wanted.search(line):
                found.append(f"{name}:{number}: {line[:_LINE]}")
                if len(found) > limit:
                    return _cut(found, limit)
    return _cut(found, limit)


def _candidates(workspace: Workspace, path: str, glob: str) -> list[str]:
    relative = workspace.relative(path)
    if relative != "." and not _is_folder(workspace, relative):
        return [relative]
    entries = (entry for entry in islice(workspace.walk(path), _SCANNED) if entry.is_file)
    return [entry.path for entry in entries if fnmatch.fnmatchcase(entry.path.rpartition("/")[2], glob)]


def _is_folder(workspace: Workspace, path: str) -> bool:
    parent, _, name = path.rpartition("/")
    return any(entry.is_folder for entry in workspace.walk(parent or ".", 1) if entry.path.rpartition("/")[2] == name)


def _line(entry: Entry) -> str:
    changed = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(max(0, min(entry.info.st_mtime, 2**33))))
    mark = "/" if entry.is_folder else ("" if entry.is_file else "  [link or special file]")
    return f"{entry.info.st_size:>12,}  {changed}  {entry.path}{mark}"


def _cut(lines: list[str], limit: int) -> str:
    if len(lines) > limit:
        lines = [*lines[:limit], f"[… more than {limit} matches; narrow the pattern or raise limit]"]
    return "\n".join(lines) or "[no match]"
