"""Archives that no good program makes, as base64."""

from __future__ import annotations

import base64
import io
import tarfile
import zipfile

_BOMB = 400 << 20


def zip_bomb() -> str:
    """400 MiB of zeros in 400 KiB."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros", "w", force_zip64=True) as file,
    ):
        for _ in range(_BOMB >> 20):
            file.write(bytes(1 << 20))
    return base64.b64encode(buffer.getvalue()).decode()


def tar_bomb() -> str:
    """The same as tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        header = tarfile.TarInfo("zeros")
        header.size = _BOMB
        archive.addfile(header, _Zeros())  # type: ignore[arg-type]  # tarfile only reads
    return base64.b64encode(buffer.getvalue()).decode()


class _Zeros:
    def read(self, size: int) -> bytes:
        return bytes(size)


def tar_with_link() -> str:
    """A link to /etc, and a file through it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("e")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
        _add(archive, "e/x")
    return base64.b64encode(buffer.getvalue()).decode()


def tar_with(name: str) -> str:
    """One file of this name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, name)
    return base64.b64encode(buffer.getvalue()).decode()


def zip_with(name: str) -> str:
    """One file of this name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x")
    return base64.b64encode(buffer.getvalue()).decode()


def _add(archive: tarfile.TarFile, name: str) -> None:
    header = tarfile.TarInfo(name)
    header.size = 1
    archive.addfile(header, io.BytesIO(b"x"))
