"""S3 as the gateway uses it: whole results, snapshots, recordings. Never in the way of the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from pinnace.storage import S3Settings, S3Uri, Storage
from pinnace.storage.errors import StorageError
from pinnace.storage.insistence import Insistence
from pinnace.storage.transfer import LocalFile
from pinnace.tools.gateway.errors import GatewayError

_INSIST = Insistence(give_up_after=5, cap=1)  # an agent waits for the call meanwhile


class NoStore(GatewayError):
    """There is no storage, or it can't be used."""


class Store:
    """Objects below `uri`. Credentials come from the environment (docs/storage.md), once they are needed."""

    def __init__(self, uri: str = "") -> None:
        self.uri = uri
        self._storage: Storage | None = None
        self._missing = "set `results.uri`"

    def configure(self, uri: str, environ: Mapping[str, str] = os.environ) -> None:
        """`uri`; where it is empty, the run's own folder `results`, if the environment names a run and a bucket."""
        self.uri = uri
        run = environ.get("PINNACE_RUN_PATH", "")
        if uri or not run:
            return
        try:
            self.uri = str(S3Settings.from_env(environ).root / run / "results")
        except StorageError as error:
            self._missing = str(error)

    def _root(self) -> tuple[Storage, S3Uri]:
        if not self.uri:
            raise NoStore(f"there is nowhere to store it: {self._missing}")
        try:
            self._storage = self._storage or Storage(S3Settings.from_env(), insist=_INSIST)
            return self._storage, S3Uri.parse(self.uri)
        except StorageError as error:
            raise NoStore(f"{self.uri}: {error}") from None

    async def write(self, path: str, content: bytes) -> str:
        """Returns the address. Raises `NoStore`."""
        storage, root = self._root()
        try:
            await asyncio.to_thread(storage.write, root / path, content)
        except StorageError as error:
            raise NoStore(f"{root / path}: {error}") from None
        return str(root / path)

    async def write_file(self, path: str, file: Path) -> str:
        """As `write`, for a file of any size."""
        storage, root = self._root()
        folder, _, name = path.rpartition("/")
        local = LocalFile(file, name)
        try:
            await asyncio.to_thread(storage.transfer.upload, [local], root / folder, insist=_INSIST)
        except StorageError as error:
            raise NoStore(f"{root / path}: {error}") from None
        return str(root / path)

    async def read_all(self, folder: str) -> dict[str, bytes]:
        """Small objects below a folder, by path. Raises `NoStore`."""
        storage, root = self._root()

        def read() -> dict[str, bytes]:
            found = storage.list(root / folder)
            return {(root / folder).relative(each.uri): storage.store.read(each.uri) for each in found}

        try:
            return await asyncio.to_thread(read)
        except StorageError as error:
            raise NoStore(f"{root / folder}: {error}") from None
