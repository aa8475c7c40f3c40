"""Beside a rollout server whose weights are in S3: fetches a version to a disk that both see."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import httpx
from aiohttp import web

from pinnace.rl.rollout import EngineUnavailable
from pinnace.rl.weights import KEPT, Publication
from pinnace.storage import Storage, StorageError


class Mirror:
    """`POST /fetch {"version", "uri", "digest"}` returns `{"path"}`, verified, once it is there."""

    def __init__(self, storage: Storage, root: Path, *, key: str) -> None:
        self._storage, self._root, self._key = storage, root, key
        self._one = asyncio.Lock()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/fetch", self.fetch)
        return app

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self._key}":
            return web.json_response({"error": "this needs the run's key (PINNACE_RL_KEY)"}, status=401)
        asked = await request.json()
        folder = self._root / f"{asked['version']:08d}"
        async with self._one:
            try:
                await asyncio.to_thread(self._storage.fetch, asked["uri"], folder, asked["digest"])
            except StorageError as error:
                return web.json_response({"error": str(error)}, status=502)
            for old in sorted(self._root.glob("[0-9]*"))[:-KEPT]:
                await asyncio.to_thread(shutil.rmtree, old)
        return web.json_response({"path": str(folder)})


class MirrorClient:
    """Asks a mirror; for `Fleet`."""

    def __init__(self, url: str, *, key: str) -> None:
        self._url = url
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=3600, trust_env=False
        )

    async def __call__(self, publication: Publication) -> str:
        """The path at the server's. Raises `EngineUnavailable`."""
        asked = {"version": publication.version, "uri": publication.uri, "digest": publication.digest}
        try:
            answer = await self._http.post("/fetch", json=asked)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise EngineUnavailable(f"mirror {self._url}: {type(error).__name__} {error}") from error
        return str(answer.json()["path"])
