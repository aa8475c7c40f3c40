"""`RolloutServer` of the reference server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from pinnace.rl.rollout import EngineUnavailable, Generation, SamplingParameters


class ReferenceServer:
    """By its address."""

    def __init__(self, url: str, *, timeout: float = 600) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits, trust_env=False)
        self._url = url

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation:
        asked = {
            "ids": list(ids),
            "temperature": parameters.temperature,
            "max_tokens": parameters.max_tokens,
            "stop_ids": list(parameters.stop_ids),
        }
        made = await self._ask("POST", "/generate", asked)
        return Generation(
            ids=tuple(made["ids"]),
            behaviour_logprobs=tuple(made["behaviour_logprobs"]),
            policy_versions=tuple(made["policy_versions"]),
            finish=made["finish"],
        )

    async def load_weights(self, version: int, uri_or_path: str) -> None:
        await self._ask("POST", "/load_weights", {"version": version, "path": uri_or_path})

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
            raise EngineUnavailable(
                f"{self._url}{path}: {error.response.status_code} {error.response.text[:300]}"
            ) from error
        except (httpx.HTTPError, ValueError) as error:
            raise EngineUnavailable(f"{self._url}{path}: {type(error).__name__} {error}") from error
        return made
