"""The session's folder: every path is opened beneath it, whatever links the model's code has laid."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from pinnace.tools.executor import linux

Kind = Literal["denied", "invalid", "not_found", "full", "failed"]
LONGEST_PATH = 4000


class FileProblem(Exception):
    """A file call that can't be done. `kind` becomes the call's outcome, the message tells the model what to do."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Entry:
    """Something in the workspace."""

    path: str
    """Relative."""
    info: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.info.st_mode)


class Workspace:
    """Opens, writes and walks below one folder."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.normpath(folder)
        self.root = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def relative(self, path: str) -> str:
        """`path` below the folder, `.` for itself. Raises `FileProblem` where its words alone leave it."""
        if "\0" in path or len(path) > LONGEST_PATH:
            raise FileProblem("invalid", f"a path is up to {LONGEST_PATH} characters, without NUL")
        if not path.startswith("/"):
            path = os.path.join(self.folder, path)  # noqa: PTH118 - a pathlib path would lose ".." and trailing slashes
        # normpath takes "a/../b" as "b"; a link at a would lead elsewhere, and that is refused when it is opened.
        path = os.path.normpath(path)
        if path != self.folder and not path.startswith(self.folder + "/"):
            raise FileProblem("denied", f"{path} is outside of {self.folder}, where all files of the session are")
        return path[len(self.folder) + 1 :] or "."

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        """A descriptor of a path below the folder. Raises `FileProblem`."""
        relative = self.relative(path)
        try:
            return linux.open_beneath(self.root, relative, flags | os.O_NONBLOCK | os.O_NOCTTY, mode)
        except OSError as error:
            raise self.problem(error, relative) from error

    def read(self, path: str, most: int) -> bytes:
        """A regular file's bytes. Raises `FileProblem`, also for more than `most` bytes, devices and pipes."""
        descriptor = self.open(path)
        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            if stat.S_ISDIR(info.st_mode):
                raise FileProblem("invalid", f"{path} is a folder; use list_files")
            if not stat.S_ISREG(info.st_mode):
                raise FileProblem("denied", f"{path} is no regular file")
            if info.st_size > most:
                raise FileProblem("invalid", f"{path} has {info.st_size:,} bytes, more than {most:,}; read it in parts")
            return file.read(most)

    def write(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Puts `data` there, whole or not at all; folders on the way are made. Raises `FileProblem`."""
        relative = self.relative(path)
        name = os.path.basename(relative)  # noqa: PTH119
        if name in {"", "."}:
            raise FileProblem("invalid", f"{path} is a folder")
        folder = self.make_folder(os.path.dirname(relative) or ".")  # noqa: PTH120
        temporary = f".{name[:100]}.{os.urandom(4).hex()}.part"
        try:
            mode = _mode(folder, name) if mode is None else mode
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), mode)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise self.problem(error, relative) from error
        finally:
            os.close(folder)

    def make_folder(self, path: str) -> int:
        """A descriptor of the folder `path`, made where it is missing. Raises `FileProblem`."""
        relative = self.relative(path)
        current = os.dup(self.root)
        try:
            done = "."
            for part in relative.split("/"):
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=current)
                done = f"{done}/{part}"
                # From the root each time: a link inside the workspace is fine, one that leaves it is not.
                below = linux.open_beneath(self.root, done, os.O_RDONLY | os.O_DIRECTORY)
                os.close(current)
                current = below
        except OSError as error:
            os.close(current)
            raise self.problem(error, relative) from error
        return current

    def walk(self, path: str = ".", depth: int = 1000) -> Iterator[Entry]:
        """All that lies below `path`, a folder's content after it; links are shown, never followed.

        What lies so deep that its path is too long is left out.
        """
        waiting = [(self.relative(path), depth)]
        while waiting:
            here, left = waiting.pop()
            try:
                descriptor = linux.open_beneath(self.root, here, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError as error:
                if here == self.relative(path):
                    raise self.problem(error, here) from error
                continue  # gone, or unreadable by its mode
            try:
                with os.scandir(descriptor) as listing:
                    names = sorted(entry.name for entry in listing)
                folders = []
                for name in names:
                    below = name if here == "." else f"{here}/{name}"
                    try:
                        entry = Entry(below, os.stat(name, dir_fd=descriptor, follow_symlinks=False))
                    except OSError:
                        continue  # gone meanwhile
                    yield entry
                    if entry.is_folder and left > 1 and len(below) < LONGEST_PATH:
                        folders.append((below, left - 1))
                waiting += reversed(folders)
            finally:
                os.close(descriptor)

    def problem(self, error: OSError, path: str) -> FileProblem:  # noqa: PLR0911 - a case each
        """What the model is told."""
        match error.errno:
            case errno.EXDEV:
                return FileProblem("denied", f"{path} leads out of {self.folder}")
            case errno.ELOOP:
                return FileProblem("denied", f"{path} goes through a link that can't be followed")
            case errno.ENOENT:
                return FileProblem("not_found", f"{path} does not exist; use list_files to see what does")
            case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                return FileProblem("full", f"{path}: the workspace has no room for it; delete files first")
            case errno.EISDIR | errno.ENOTDIR | errno.ENAMETOOLONG:
                return FileProblem("invalid", f"{path}: {error.strerror}")
            case errno.EACCES | errno.EPERM | errno.ENXIO:
                return FileProblem("denied", f"{path}: {error.strerror}")
            case _:
                return FileProblem("failed", f"{path}: {error.strerror}")


def _mode(folder: int, name: str) -> int:
    """That of the file which is replaced."""
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return 0o644
    if stat.S_ISDIR(info.st_mode):
        raise OSError(errno.EISDIR, "Is a directory")
    return stat.S_IMODE(info.st_mode) & 0o777 if stat.S_ISREG(info.st_mode) else 0o644


def empty(folder: str) -> int:
    """Deletes all content of `folder` and returns how many folders that was; for when nobody else runs.

    However deep it is nested: subfolders are moved to the top before they are entered, so no path grows and no stack.
    """
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    count = 0
    try:
        waiting = _clear(root, root)
        while waiting:
            count += len(waiting)
            name = waiting.pop()
            os.chmod(name, 0o700, dir_fd=root)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
            try:
                waiting += _clear(below, root)
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=root)
    finally:
        os.close(root)
    return count


def _clear(folder: int, root: int) -> list[str]:
    """Unlinks what is no folder and moves the folders to `root`; returns their names there."""
    moved = []
    with os.scandir(folder) as listing:
        entries = list(listing)
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.name, dir_fd=folder)
        elif folder == root:
            moved.append(entry.name)
        else:
            # A folder without w for its owner can't be moved: its own ".." would change.
            os.chmod(entry.name, 0o700, dir_fd=folder)
            name = f".{os.urandom(12).hex()}"
            os.rename(entry.name, name, src_dir_fd=folder, dst_dir_fd=root)
            moved.append(name)
    return moved
