"""`RolloutEngine` of the reference server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import httpx

from pinnace.rl.rollout import EngineUnavailable, Generation, SamplingParameters, WeightsNotLoaded


class _Refused(EngineUnavailable):
    """The server answered, with an error."""


class ReferenceServer:
    """By its address."""

    def __init__(self, url: str, *, timeout: float = 600) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits, trust_env=False)
        self._url = url

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation:
        """What an update cuts short goes on from its tokens; the versions tell them apart."""
        asked = {"temperature": parameters.temperature, "stop_ids": list(parameters.stop_ids)}
        made: dict[str, list[Any]] = {"ids": [], "behaviour_logprobs": [], "policy_versions": []}
        finish = "abort"
        while finish == "abort" and len(made["ids"]) < parameters.max_tokens:
            left = parameters.max_tokens - len(made["ids"])
            part = await self._ask("POST", "/generate", {**asked, "ids": [*ids, *made["ids"]], "max_tokens": left})
            finish = part["finish"]
            for stream in made:
                made[stream] += part[stream]
        return Generation(
            ids=tuple(made["ids"]),
            behaviour_logprobs=tuple(made["behaviour_logprobs"]),
            policy_versions=tuple(made["policy_versions"]),
            finish="stop" if finish == "stop" else "length",
        )

    async def load_weights(self, version: int, path: PurePath) -> None:
        """While paused."""
        try:
            await self._ask("POST", "/load_weights", {"version": version, "path": str(path)})
        except _Refused as error:
            raise WeightsNotLoaded(str(error)) from error

    async def pause(self) -> None:
        await self._ask("POST", "/pause")

    async def resume(self) -> None:
        await self._ask("POST", "/resume")

    async def version(self) -> int:
        return int((await self._ask("GET", "/version"))["version"])

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _ask(self, method: str, path: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = await self._http.request(method, path, json=given)
            answer.raise_for_status()
            made: dict[str, Any] = answer.json()
        except httpx.HTTPStatusError as error:
            raise _Refused(f"{self._url}{path}: {error.response.status_code} {error.response.text[:300]}") from error
        except (httpx.HTTPError, ValueError) as error:
            raise EngineUnavailable(f"{self._url}{path}: {type(error).__name__} {error}") from error
        return made
