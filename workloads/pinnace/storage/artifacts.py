"""Artifacts: folders with a manifest and a description, published once and fetched by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from pinnace.storage.errors import Conflict, DamagedFile, Incomplete, NotFound
from pinnace.storage.insistence import Insistence
from pinnace.storage.manifest import MANIFEST, FileEntry, Manifest, now
from pinnace.storage.objects import ObjectStore
from pinnace.storage.transfer import Transfer, tree
from pinnace.storage.upload import write_manifest
from pinnace.storage.uri import S3Uri

ARTIFACT = "artifact.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
_COPIED_AT_ONCE = 16 << 20


class _Described(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Ancestor(_Described):
    """One thing this artifact was made from: what it is (`model`, `data`, `SFTJob/warmup`), where, which content."""

    ref: str
    uri: str
    digest: str | None = None


class Description(_Described):
    """`artifact.json`."""

    kind: str
    base_model: str | None = None
    tokenizer_hash: str | None = None
    lineage: tuple[Ancestor, ...] = ()


@dataclass(frozen=True)
class Published:
    """A published artifact: its address and the digest of its manifest."""

    uri: str
    digest: str


@dataclass(frozen=True)
class Artifact:
    """What `show` returns. `description` is None for folders that Pinnace did not write."""

    uri: str
    digest: str
    manifest: Manifest
    description: Description | None


def tokenizer_hash(folder: Path) -> str | None:
    """`sha256:` over the tokenizer's files, by name and content; None without a tokenizer."""
    return tokenizer_hash_of(
        {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}
    )


def tokenizer_hash_of(contents: Mapping[str, bytes]) -> str | None:
    """The same over files in memory, by name; other files don't count."""
    digest = hashlib.sha256()
    found = [name for name in TOKENIZER_FILES if name in contents]
    for name in found:
        digest.update(f"{name}\0{len(contents[name])}\0".encode())
        digest.update(contents[name])
    return f"sha256:{digest.hexdigest()}" if found else None


def publish(
    transfer: Transfer,
    local_dir: Path,
    to: S3Uri,
    *,
    kind: str,
    base_model: str | None,
    lineage: Sequence[Ancestor],
    replace: bool,
    insist: Insistence,
) -> Published:
    """See `Storage.publish`."""
    store = transfer.store
    # The description of what the folder was made from, if there is one, is not that of the new artifact.
    files = [file for file in tree(local_dir) if file.path != ARTIFACT]
    if not files:
        raise NotFound(f"{local_dir} has no files: nothing to publish")
    old = present(store, to)
    if old is not None and not replace:
        raise Conflict(
            f"{to} holds an artifact already ({old.digest}): choose another address, or replace it explicitly"
        )
    if old is not None:
        # Readers of the old one must not find its manifest over new files.
        store.delete([to / MANIFEST])
    description = Description(
        kind=kind, base_model=base_model, tokenizer_hash=tokenizer_hash(local_dir), lineage=tuple(lineage)
    )
    body = description.model_dump_json(by_alias=True).encode()
    insist(lambda: store.put(to / ARTIFACT, body))
    entries = transfer.upload(files, to, insist=insist)
    entries.append(FileEntry(path=ARTIFACT, size=len(body), sha256=hashlib.sha256(body).hexdigest()))
    parents = tuple(sorted({ancestor.digest for ancestor in lineage if ancestor.digest}))
    manifest = Manifest(
        kind="artifact", parents=parents, files=tuple(sorted(entries, key=lambda file: file.path)), time=now()
    )
    insist(lambda: write_manifest(store, to, manifest))
    # Files of an earlier, different attempt are not part of it.
    listed = {file.path for file in entries} | {MANIFEST}
    store.delete([one.uri for one in store.list(to) if to.relative(one.uri) not in listed])
    return Published(str(to), manifest.digest)


def open_artifact(store: ObjectStore, uri: S3Uri) -> Manifest:
    """The manifest. Raises `NotFound`, `Incomplete`, `DamagedFile`."""
    try:
        return Manifest.parse(store.read(uri / MANIFEST))
    except NotFound:
        if any(True for _ in store.list(uri)):
            raise Incomplete(
                f"{uri} has files but no {MANIFEST}: its upload did not finish, or another tool made it: "
                "publish it with `pinnace artifact push`"
            ) from None
        raise NotFound(f"{uri}: nothing is stored there; check the address") from None


def show(store: ObjectStore, uri: S3Uri) -> Artifact:
    """See `Storage.show`."""
    manifest = open_artifact(store, uri)
    description = None
    if any(file.path == ARTIFACT for file in manifest.files):
        try:
            description = Description.model_validate_json(store.read(uri / ARTIFACT))
        except (NotFound, ValidationError) as error:
            raise DamagedFile(ARTIFACT, f"can't be read ({uri}): {type(error).__name__}") from None
    return Artifact(str(uri), manifest.digest, manifest, description)


def fetch(transfer: Transfer, uri: S3Uri, dest: Path, digest: str | None) -> Published:
    """See `Storage.fetch`."""
    manifest = open_artifact(transfer.store, uri)
    if digest is not None and manifest.digest != digest:
        raise DamagedFile(
            MANIFEST, f"{uri} is {manifest.digest}, wanted {digest}", "it was replaced since: refer to the new digest"
        )
    try:
        transfer.download(manifest.files, uri, dest)
    except DamagedFile as error:
        current = present(transfer.store, uri)
        if current is None or current.digest != manifest.digest:
            raise NotFound(f"{uri} was removed or replaced while it was read: fetch it again") from error
        raise
    return Published(str(uri), manifest.digest)


def copy(
    store: ObjectStore, source: S3Uri, to: S3Uri, *, insist: Insistence, copied: Callable[[int], None]
) -> Published:
    """See `Storage.copy`."""
    manifest = open_artifact(store, source)
    for uri, upload_id in insist(lambda: list(store.unfinished_parts(to))):
        store.abort_parts(uri, upload_id)
    for file in manifest.files:
        _copy(store, file, source / file.path, to / file.path, insist=insist, copied=copied)
    insist(lambda: write_manifest(store, to, manifest))
    return Published(str(to), manifest.digest)


def _copy(
    store: ObjectStore,
    file: FileEntry,
    source: S3Uri,
    to: S3Uri,
    *,
    insist: Insistence,
    copied: Callable[[int], None],
) -> None:
    """One file through this process's memory, a part at a time; it is there only if its digest is right."""
    digest, upload_id = hashlib.sha256(), ""
    tags: list[str] = []
    if file.size > _COPIED_AT_ONCE:
        upload_id = insist(lambda: store.begin_parts(to))
    for start in range(0, max(1, file.size), _COPIED_AT_ONCE):
        body = insist(partial(store.read, source, start, min(file.size, start + _COPIED_AT_ONCE))) if file.size else b""
        digest.update(body)
        if upload_id:
            tags.append(insist(partial(store.put_part, to, upload_id, len(tags) + 1, body)))
        copied(len(body))
    if digest.hexdigest() != file.sha256:
        if upload_id:
            store.abort_parts(to, upload_id)
        raise DamagedFile(file.path, f"{source} is not what its manifest says")
    if upload_id:
        insist(lambda: store.finish_parts(to, upload_id, tags))
    else:
        insist(lambda: store.put(to, body))


def present(store: ObjectStore, uri: S3Uri) -> Manifest | None:
    """The manifest of an artifact that is complete, else None."""
    try:
        return open_artifact(store, uri)
    except (NotFound, Incomplete, DamagedFile):
        return None
