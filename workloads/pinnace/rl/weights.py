"""Published policies: a Hugging Face folder a version, complete or not there, on disk or in S3. No torch.

`newest.json` names the newest one. Versions only grow. With the weights comes a *probe*: ids of a fixed prompt and the
trainer's log-probs of every next token, by which a server's weights are told from any others.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from pinnace.storage import NotFound, S3Uri, Storage

PROBE = "probe.json"
NEWEST = "newest.json"
KEPT = 2  # a server may still be loading the one before


class VersionTaken(ValueError):
    """This or a newer version is published already: another trainer writes to the same place."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Natural log-probs of every word of the vocabulary after `ids`, at the run's temperature."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str | bytes) -> Probe:
        made = json.loads(text)
        return cls(ids=tuple(made["ids"]), logprobs=tuple(made["logprobs"]))


@dataclass(frozen=True, kw_only=True)
class Publication:
    """`digest` is that of the artifact in S3; on disk a rename is what makes it complete."""

    version: int
    uri: str
    digest: str | None = None


class Weights(Protocol):
    """Where the trainer publishes, and the proxy looks."""

    def publish(self, version: int, write: Callable[[Path], None]) -> Publication:
        """`write` fills a folder; the version exists when this returns. Raises `VersionTaken`."""
        ...

    def newest(self) -> Publication | None: ...

    def probe(self, publication: Publication) -> Probe: ...


class DiskWeights:
    """In a folder that trainer and servers share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, version: int, write: Callable[[Path], None]) -> Publication:
        _check_new(version, self.newest())
        self._root.mkdir(parents=True, exist_ok=True)
        staged, final = self._root / f".{version:08d}", self._root / f"{version:08d}"
        for left in (staged, final):  # of a trainer that was killed before it named them
            shutil.rmtree(left, ignore_errors=True)
        staged.mkdir()
        write(staged)
        staged.rename(final)
        made = Publication(version=version, uri=str(final.absolute()))
        replace_file(self._root / NEWEST, json.dumps(asdict(made)))
        for old in sorted(self._root.glob("[0-9]*"))[:-KEPT]:
            shutil.rmtree(old)
        return made

    def newest(self) -> Publication | None:
        path = self._root / NEWEST
        return Publication(**json.loads(path.read_text())) if path.exists() else None

    def probe(self, publication: Publication) -> Probe:
        return Probe.load((Path(publication.uri) / PROBE).read_text())


class S3Weights:
    """As artifacts with a digest; a mirror beside each server fetches them (`pinnace rl mirror`)."""

    def __init__(self, storage: Storage, root: S3Uri) -> None:
        self._storage, self._root = storage, root

    def publish(self, version: int, write: Callable[[Path], None]) -> Publication:
        before = self.newest()
        _check_new(version, before)
        with tempfile.TemporaryDirectory(prefix="weights-") as folder:
            write(Path(folder))
            made = self._storage.publish(Path(folder), self._root / f"{version:08d}", kind="policy")
        publication = Publication(version=version, uri=made.uri, digest=made.digest)
        self._storage.write(self._root / NEWEST, json.dumps(asdict(publication)).encode())
        kept = {S3Uri.parse(one.uri).name for one in (before, publication) if one is not None} | {NEWEST}
        old = (one.uri for one in self._storage.list(self._root))
        self._storage.store.delete(uri for uri in old if self._root.relative(uri).partition("/")[0] not in kept)
        return publication

    def newest(self) -> Publication | None:
        try:
            with self._storage.open(self._root / NEWEST) as stream:
                return Publication(**json.loads(stream.read()))
        except NotFound:
            return None

    def probe(self, publication: Publication) -> Probe:
        with self._storage.open(S3Uri.parse(publication.uri) / PROBE) as stream:
            return Probe.load(stream.read())


def weights_at(storage: str | None, folder: Path) -> Weights:
    """In S3 below `storage`, or below `folder` where there is none."""
    if storage is None:
        return DiskWeights(folder / "weights")
    return S3Weights(Storage.from_env(), S3Uri.parse(storage) / "weights")


def replace_file(path: Path, text: str) -> None:
    """Readers find the old content or the new, whatever is killed."""
    staged = path.with_name(f".{path.name}.new")
    with staged.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


def _check_new(version: int, newest: Publication | None) -> None:
    if newest is not None and version <= newest.version:
        raise VersionTaken(
            f"policy version {version} after {newest.version} at {newest.uri}: is there another trainer?"
        )
