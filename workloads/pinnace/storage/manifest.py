"""`manifest.json`: what a checkpoint or artifact consists of. Written last; without it the thing does not exist."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from pinnace.storage.errors import DamagedFile, InvalidName
from pinnace.storage.uri import check_path

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 256 << 20

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Decimal = Annotated[str, StringConstraints(pattern=r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class FileEntry(_Strict):
    """One file: `path` inside the checkpoint or artifact, `size` in bytes, `sha256` in hex."""

    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("path")
    @classmethod
    def _safe(cls, path: str) -> str:
        if path == MANIFEST:
            raise InvalidName("manifest.json can't list itself")
        return check_path(path)


class Manifest(_Strict):
    """The commit record.

    Attributes:
        step: optimizer step (checkpoints only).
        policy_version: version of the policy that these weights are (RL).
        config_hash: hash of the training configuration, to notice a resume with another one.
        parents: digests of what this was made from.
        score: decimal, higher is better; what `best` means.
        time: RFC 3339, UTC; not part of the digest.
    """

    version: Literal[1] = 1
    kind: Literal["checkpoint", "artifact"]
    step: int | None = Field(default=None, ge=0)
    policy_version: int | None = Field(default=None, ge=0)
    config_hash: str | None = None
    parents: tuple[Digest, ...] = ()
    score: Decimal | None = None
    files: tuple[FileEntry, ...]
    time: str

    @field_validator("files")
    @classmethod
    def _unique(cls, files: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
        paths = {file.path for file in files}
        if len(paths) != len(files):
            raise ValueError("a path is listed twice")
        for path in paths:
            folder = path
            while folder := folder.rpartition("/")[0]:
                if folder in paths:
                    raise ValueError(f"{folder} is listed as a file and as a folder")
        return files

    @property
    def digest(self) -> str:
        """`sha256:` of the canonical JSON (sorted keys and files, no spaces, UTF-8) without `time`."""
        return f"sha256:{hashlib.sha256(self._canonical(with_time=False)).hexdigest()}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`."""
        return self._canonical(with_time=True)

    def _canonical(self, *, with_time: bool) -> bytes:
        content = self.model_dump(mode="json", by_alias=True, exclude=None if with_time else {"time"})
        content["files"].sort(key=lambda file: file["path"])
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """Raises `DamagedFile` naming manifest.json and the first thing that is wrong with it."""
        try:
            return cls.model_validate_json(content, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "JSON"
            raise DamagedFile(MANIFEST, f"{where}: {first['msg']}") from None


def now() -> str:
    """The time as manifests write it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def select(files: Iterable[FileEntry], only: Iterable[str]) -> list[FileEntry]:
    """Those files that lie in (or are) one of the paths `only`; all if it is empty."""
    wanted = tuple(only)
    return [
        file
        for file in files
        if not wanted or any(file.path == path or file.path.startswith(f"{path}/") for path in wanted)
    ]
