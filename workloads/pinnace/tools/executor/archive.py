"""The workspace as a tar stream, and archives unpacked into it: bounded, plain files and folders only."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, cast

from pinnace.tools.executor.workspace import Entry, FileProblem, Workspace

_ENTRIES = 20_000
_CHUNK = 256 * 1024


class _Sink(io.RawIOBase):
    """Gives what tarfile writes to `send`, in chunks."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # tarfile gives bytes only
        self._held += data
        if len(self._held) >= _CHUNK:
            self.flush()
        return len(data)

    def flush(self) -> None:
        if self._held:
            self._send(bytes(self._held))
            self._held.clear()


class _Exactly(io.RawIOBase):
    """Reads exactly `size` bytes of a file that the code may shorten meanwhile; zeros stand for what went."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._left = descriptor, size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = os.read(self._descriptor, wanted) if wanted else b""
        data += b"\0" * (wanted - len(data)) if len(data) < wanted and not data else b""
        self._left -= len(data)
        return data if len(data) == wanted else data + self.read(wanted - len(data))


def write_tar(workspace: Workspace, send: Callable[[bytes], None], *, most: int) -> dict[str, int]:
    """Streams the workspace as tar; returns {files, bytes, leftOut}. Raises `FileProblem` past `most` bytes.

    Links that leave the workspace, sockets, pipes, devices and unreadable files are left out and counted.
    """
    sink = _Sink(send)
    files = total = left_out = 0
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as tar:
        for entry in workspace.walk():
            header = tarfile.TarInfo(entry.path)
            header.mtime = int(max(0, entry.info.st_mtime))
            header.mode = stat.S_IMODE(entry.info.st_mode) & 0o777
            if entry.is_folder:
                header.type = tarfile.DIRTYPE
                tar.addfile(header)
            elif entry.is_file:
                total += entry.info.st_size
                if total > most:
                    raise FileProblem(
                        "full", f"the workspace holds more than {most:,} bytes; delete files and try again"
                    )
                if _add(tar, header, entry, workspace):
                    files += 1
                else:
                    left_out += 1
            elif not _add_link(tar, header, entry, workspace):
                left_out += 1
    sink.flush()
    return {"files": files, "bytes": total, "leftOut": left_out}


def _add(tar: tarfile.TarFile, header: tarfile.TarInfo, entry: Entry, workspace: Workspace) -> bool:
    try:
        descriptor = workspace.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileProblem:
        return False
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # replaced since we listed it
            return False
        header.size = entry.info.st_size
        tar.addfile(header, _Exactly(descriptor, header.size))
        return True
    finally:
        os.close(descriptor)


def _add_link(tar: tarfile.TarFile, header: tarfile.TarInfo, entry: Entry, workspace: Workspace) -> bool:
    if not stat.S_ISLNK(entry.info.st_mode):
        return False
    try:
        target = os.readlink(entry.path, dir_fd=workspace.root)
    except OSError:
        return False
    landing = os.path.normpath(os.path.join(os.path.dirname(entry.path), target))  # noqa: PTH118, PTH120
    if target.startswith("/") or landing == ".." or landing.startswith("../"):
        return False
    header.type, header.linkname = tarfile.SYMTYPE, target
    tar.addfile(header)
    return True


@dataclass(frozen=True)
class _Member:
    name: str
    is_folder: bool
    size: int
    executable: bool
    open: Callable[[], IO[bytes]]
    """Valid until the next member."""


def unpack(workspace: Workspace, data: bytes, *, folder: str, most: int) -> dict[str, int]:
    """Unpacks a tar (plain, gz, bz2, xz) or zip below `folder`; returns {files, bytes}.

    Nothing is written unless every member is a plain file or folder with a path below `folder`, and the declared sizes
    stay within `most` bytes; what lies about its size is stopped at it. Raises `FileProblem`.
    """
    members = _zip_members if zipfile.is_zipfile(io.BytesIO(data)) else _tar_members
    try:
        for _ in _checked(workspace, members(data, most), folder=folder, most=most):
            pass
        files = written = 0
        for path, member in _checked(workspace, members(data, most), folder=folder, most=most):
            if member.is_folder:
                os.close(workspace.make_folder(path))
                continue
            with member.open() as file:
                content = file.read(most - written + 1)
            written += len(content)
            if written > most:
                raise _too_large(most)
            workspace.write(path, content, mode=0o755 if member.executable else 0o644)
            files += 1
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        raise FileProblem("invalid", f"the archive can't be read: {error}") from error
    return {"files": files, "bytes": written}


def _too_large(most: int) -> FileProblem:
    return FileProblem("denied", f"the archive unpacks to more than {most:,} bytes")


def _checked(
    workspace: Workspace, members: Iterator[_Member], *, folder: str, most: int
) -> Iterator[tuple[str, _Member]]:
    total = 0
    top = workspace.relative(folder)
    for count, member in enumerate(members):
        if count >= _ENTRIES:
            raise FileProblem("denied", f"the archive has more than {_ENTRIES:,} entries")
        total += member.size
        if total > most:
            raise _too_large(most)
        if member.name.startswith("/") or "\\" in member.name or ".." in member.name.split("/"):
            raise FileProblem("denied", f"the archive has a member outside of its folder: {member.name[:200]}")
        yield workspace.relative(f"{top}/{member.name}"), member


def _zip_members(data: bytes, _most: int) -> Iterator[_Member]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise FileProblem("denied", f"the archive has a link or special file: {info.filename[:200]}")
            opened = functools.partial(archive.open, info)
            yield _Member(info.filename, info.is_dir(), info.file_size, bool(mode & 0o100), opened)


def _tar_members(data: bytes, most: int) -> Iterator[_Member]:
    """As a stream, of which never more than a block is in memory."""
    with tarfile.open(fileobj=_Bounded(_inflated(data), most), mode="r|") as archive:
        for info in archive:
            if not (info.isreg() or info.isdir()):
                raise FileProblem("denied", f"the archive has a link or special file: {info.name[:200]}")
            opened = functools.partial(_opened, archive, info)
            yield _Member(info.name, info.isdir(), info.size, bool(info.mode & 0o100), opened)


def _opened(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    if file is None:
        raise FileProblem("invalid", f"{info.name} can't be read")
    return file


def _inflated(data: bytes) -> IO[bytes]:
    raw = io.BytesIO(data)
    if data.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if data.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.BZ2File(raw))
    if data.startswith(b"\xfd7zXZ"):
        return cast("IO[bytes]", lzma.LZMAFile(raw))
    return raw


class _Bounded(io.RawIOBase):
    """A stream that may inflate to `most` bytes and the headers of as many entries as are allowed."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most = stream, most
        self._left = most + _ENTRIES * 1024

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _too_large(self._most)
        return data
