"""The end of a merge: what goes with the weights, the description, and the manifest last."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pinnace.storage.artifacts import ARTIFACT, Description, Published, tokenizer_hash_of
from pinnace.storage.manifest import FileEntry, Manifest, now
from pinnace.storage.upload import write_manifest

from .plan import Plan
from .source import INDEX
from .state import Output


def commit(plan: Plan, output: Output, weights: Sequence[FileEntry]) -> Published:
    """Makes the output exist. Raises `StorageUnavailable`, `SourceChanged`, `Conflict`."""
    small = {name: plan.layout.folder.read(name) for name in plan.copied}
    small["config.json"] = plan.config()
    if (index := plan.index()) is not None:
        small[INDEX] = index
    description = Description(
        kind="model",
        base_model=str(plan.layout.folder.uri),
        tokenizer_hash=tokenizer_hash_of(small),
        lineage=plan.lineage,
    )
    small[ARTIFACT] = description.model_dump_json(by_alias=True).encode()
    files = [*weights, *(_put(output, name, body) for name, body in sorted(small.items()))]
    manifest = Manifest(
        kind="artifact",
        config_hash=plan.hash,
        parents=tuple(sorted({one.digest for one in plan.lineage if one.digest})),
        files=tuple(sorted(files, key=lambda file: file.path)),
        time=now(),
    )
    output.insist(lambda: write_manifest(output.store, output.uri, manifest))
    output.finish()
    return Published(str(output.uri), manifest.digest)


def _put(output: Output, name: str, body: bytes) -> FileEntry:
    output.insist(lambda: output.store.put(output.uri / name, body))
    return FileEntry(path=name, size=len(body), sha256=hashlib.sha256(body).hexdigest())
