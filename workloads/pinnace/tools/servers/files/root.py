"""The folder that files are read from, and no way out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pinnace.tools.servers.files.errors import FileRefused, Unreadable

LARGEST = 64 << 20
_MOST_ENTRIES = 1000


class Root:
    """Opens what is below a folder, one component of the path at a time, following no symbolic link.

    Resolving a path first and opening it afterwards would leave a moment in which a link can be put in between.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def bytes_of(self, path: str) -> bytes:
        """The file's content.

        Raises:
            FileRefused: The path leads elsewhere, or is no regular file.
            Unreadable: There is no such file, or it is larger than 64 MiB.
        """
        parts = _parts(path)
        if not parts:
            raise FileRefused("name a file, not the folder itself")
        folder = self._open_folder(parts[:-1], path)
        try:
            file = _opened(parts[-1], os.O_RDONLY | os.O_NONBLOCK, folder, path)
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise FileRefused(f"{path} is no regular file; use list_documents to see what is there")
        with os.fdopen(file, "rb") as stream:
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise Unreadable(f"{path} is larger than {LARGEST >> 20} MiB")
        return content

    def entries(self, path: str = "") -> Iterator[tuple[str, int]]:
        """Files below a folder with their sizes, in order of their paths; at most a thousand, links left out."""
        left = _MOST_ENTRIES
        pending = ["/".join(_parts(path))]
        while pending and left:
            folder = pending.pop()
            here = self._open_folder(_parts(folder), folder or ".")
            try:
                names = sorted(os.listdir(here))  # noqa: PTH208 - pathlib knows no descriptors
                for name in names:
                    about = os.stat(name, dir_fd=here, follow_symlinks=False)
                    below = f"{folder}/{name}" if folder else name
                    if stat.S_ISDIR(about.st_mode):
                        pending.append(below)
                    elif stat.S_ISREG(about.st_mode) and left:
                        left -= 1
                        yield below, about.st_size
            finally:
                os.close(here)

    def _open_folder(self, parts: tuple[str, ...], path: str) -> int:
        """A descriptor of the folder, to be closed by the caller."""
        here = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        for part in parts:
            try:
                below = _opened(part, os.O_RDONLY | os.O_DIRECTORY, here, path)
            finally:
                os.close(here)
            here = below
        return here


def _parts(path: str) -> tuple[str, ...]:
    if "\0" in path:
        raise FileRefused("a path has no NUL")
    pure = PurePosixPath(path.strip())
    if pure.is_absolute() or ".." in pure.parts:
        raise FileRefused(f"{path}: give a path relative to the folder, without ..")
    return pure.parts


def _opened(name: str, flags: int, folder: int, path: str) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise Unreadable(f"{path} does not exist; use list_documents to see what is there") from None
    except OSError as error:
        # ELOOP or ENOTDIR: a symbolic link, or a file where a folder should be.
        raise FileRefused(f"{path} can't be opened: {os.strerror(error.errno or 0)} (links are not followed)") from None
