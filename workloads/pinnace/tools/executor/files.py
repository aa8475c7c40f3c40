"""The session's file tools, under the uid of the model's code. `python -I -m pinnace.tools.executor.files FOLDER…`."""

from __future__ import annotations

import base64
import binascii
import os
import sys
from collections.abc import Callable
from typing import Any

from pinnace.tools.executor import search
from pinnace.tools.executor.channel import Channel
from pinnace.tools.executor.frames import Message
from pinnace.tools.executor.harden import Hardening, Limits, harden, limit
from pinnace.tools.executor.workspace import FileProblem, Workspace, empty

TRANSFER = 8 * 1024 * 1024
"""Bytes of one upload or download."""
_READ = 16 * 1024 * 1024
_TEXT = 64 * 1024
_LINE = 2000


def read_file(workspace: Workspace, *, path: str, start: int, lines: int) -> Message:
    """Numbered lines from `start` (1 is the first); long lines and long answers are cut, and that is said."""
    data = workspace.read(path, _READ)
    if b"\0" in data[:8192]:
        raise FileProblem("invalid", f"{path} is no text; read it with python, or download it")
    every = data.decode(errors="replace").splitlines()
    shown: list[str] = []
    size = 0
    for number, line in enumerate(every[start - 1 : start - 1 + lines], start):
        text = line if len(line) <= _LINE else f"{line[:_LINE]} [… {len(line) - _LINE:,} characters left out]"
        size += len(text)
        if size > _TEXT and shown:
            break
        shown.append(f"{number:>6}\t{text}")
    last = start + len(shown) - 1
    if last < len(every):
        shown.append(f"[{len(every)} lines in all; go on with start={last + 1}]")
    elif not shown:
        shown.append(f"[{len(every)} lines in all]" if every else "[empty file]")
    return {"text": "\n".join(shown), "data": {"lines": len(every), "bytes": len(data)}}


def write_file(workspace: Workspace, *, path: str, content: str, append: bool) -> Message:
    """Writes text."""
    data = content.encode(errors="surrogateescape")
    if append:
        data = _present(workspace, path, _READ) + data
    workspace.write(path, data)
    return {"text": f"{path}: {len(data):,} bytes written", "data": {"bytes": len(data)}}


def _present(workspace: Workspace, path: str, most: int) -> bytes:
    """What the file has; nothing where there is none."""
    try:
        return workspace.read(path, most)
    except FileProblem as problem:
        if problem.kind != "not_found":
            raise
        return b""


def edit_file(workspace: Workspace, *, path: str, old: str, new: str, every: bool) -> Message:
    """Replaces one exact passage, which must be there once unless `every` is set."""
    text = workspace.read(path, _READ).decode(errors="surrogateescape")
    count = text.count(old)
    if count == 0:
        raise FileProblem(
            "failed", f"{path} does not contain this passage; read the file and copy it exactly, spaces too"
        )
    if count > 1 and not every:
        raise FileProblem(
            "failed", f"{path} contains this passage {count} times; give more of what surrounds it, or set replaceAll"
        )
    workspace.write(path, text.replace(old, new).encode(errors="surrogateescape"))
    return {"text": f"{path}: {count} replaced", "data": {"replaced": count}}


def upload(workspace: Workspace, *, path: str, data: str, unpack: bool, append: bool, most: int) -> Message:
    """Puts bytes there, or behind what is there, or unpacks them as an archive below `path`."""
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FileProblem("invalid", f"data is no base64: {error}") from error
    if len(content) > TRANSFER:
        raise FileProblem("invalid", f"{len(content):,} bytes are more than {TRANSFER:,}; send it in parts")
    if unpack:
        from pinnace.tools.executor import archive  # here and below: the helper starts with every lease

        done = archive.unpack(workspace, content, folder=path, most=most)
        return {"text": f"{path}: {done['files']} files, {done['bytes']:,} bytes unpacked", "data": done}
    if append:
        content = _present(workspace, path, most) + content
    workspace.write(path, content)
    return {"text": f"{path}: {len(content):,} bytes written", "data": {"bytes": len(content)}}


def download(workspace: Workspace, *, path: str) -> Message:
    """A file's bytes."""
    content = workspace.read(path, TRANSFER)
    return {
        "text": f"{path}: {len(content):,} bytes",
        "blob": base64.b64encode(content).decode(),
        "data": {"bytes": len(content)},
    }


def _text(function: Callable[..., str]) -> Callable[..., Message]:
    return lambda workspace, **arguments: {"text": function(workspace, **arguments)}


OPERATIONS: dict[str, Callable[..., Message]] = {
    "read_file": read_file,
    "write_file": write_file,
    "edit_file": edit_file,
    "list_files": _text(search.list_files),
    "find_files": _text(search.find_files),
    "grep": _text(search.grep),
    "upload": upload,
    "download": download,
}


def main() -> None:
    """Serves the supervisor until it closes the control socket."""
    hardening = Hardening.from_environment()
    channel = Channel()
    harden(hardening, hide=True)
    workspace = Workspace(sys.argv[1])
    channel.send({"ready": True, "pid": os.getpid()})
    while (message := channel.receive()) is not None:
        channel.send(_answer(workspace, channel, message))


def _answer(workspace: Workspace, channel: Channel, message: Message) -> Message:  # noqa: PLR0911 - a case each
    arguments: dict[str, Any] = message.get("arguments", {})
    try:
        match message["op"]:
            case "arm":
                limit(Limits(**message["limits"]))
                return {}
            case "empty":
                return {"entries": sum(empty(folder) for folder in sys.argv[1:])}
            case "tar":
                from pinnace.tools.executor import archive

                send = lambda data: channel.send({"chunk": base64.b64encode(data).decode()})  # noqa: E731
                return {"data": archive.write_tar(workspace, send, most=int(arguments["most"]))}
            case operation:
                return OPERATIONS[operation](workspace, **arguments)
    except FileProblem as problem:
        return {"problem": problem.kind, "message": str(problem)}
    except MemoryError:
        return {"problem": "failed", "message": "the file is too large for the session's memory limit"}
    except OSError as error:
        return {"problem": "failed", "message": f"{error.filename or 'file system'}: {error.strerror}"}


if __name__ == "__main__":
    main()
