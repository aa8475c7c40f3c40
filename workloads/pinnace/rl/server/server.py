"""What the adapters share: requests that survive aborts, weight updates that leave nothing of the old weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar, Literal

from pinnace.rl.rollout import EngineUnavailable, EngineUnsuitable, Generation, SamplingParameters, WeightsNotLoaded
from pinnace.rl.types import CONTEXT_VERSION

from .http import Http, RequestRefused

FIRST_WEIGHTS = "default"  # what both servers call the weights that they were started with
ABORTS = 8  # in a row, without a token between them


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one request brought; an aborted one is continued by another."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    versions: tuple[int, ...]
    finish: Literal["stop", "length", "abort"]


class ServerEngine(ABC):
    """A `RolloutEngine` on a model server. Made by `pinnace.rl.server.probe.connect`, which checks what it can do.

    Attributes:
        liveness: a route for probes that also answers during a pause.
    """

    name: ClassVar[str]
    liveness: ClassVar[str]
    remedies: ClassVar[Mapping[str, str]]
    """The routes that are needed, and what to do where one is missing."""
    own_logprobs: ClassVar[str]
    """What to do where log-probs are not those of the distribution that was sampled."""

    def __init__(self, http: Http, *, model: str, context_tokens: int) -> None:
        self.http, self.model, self.context_tokens = http, model, context_tokens
        self._paused = False

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation:
        """As `RolloutEngine.generate`. What is aborted goes on from the tokens that it has, whoever aborted it."""
        made: list[Part] = []
        prompt, left, aborts = list(ids), parameters.max_tokens, 0
        while True:
            part = await self._asked(prompt, parameters, left)
            made.append(part)
            prompt += part.ids
            left -= len(part.ids)
            if part.finish != "abort":
                break
            aborts = 0 if part.ids else aborts + 1
            if aborts == ABORTS:
                raise EngineUnavailable(f"{self.http.url} aborted a request {ABORTS} times without sampling a token")
            if left <= 0:
                break
        return Generation(
            ids=tuple(token for part in made for token in part.ids),
            behaviour_logprobs=tuple(logprob for part in made for logprob in part.logprobs),
            policy_versions=tuple(version for part in made for version in part.versions),
            finish="stop" if part.finish == "stop" else "length",
        )

    async def load_weights(self, version: int, path: PurePath) -> None:
        """As `RolloutEngine.load_weights`."""
        paused = self._paused
        await self.pause()
        try:
            await self._load(str(version), str(path))
            now = await self.version()
        except RequestRefused as error:
            raise WeightsNotLoaded(f"{self.name} did not load version {version} from {path}: {error}") from error
        if now != version:
            raise WeightsNotLoaded(f"{self.name} at {self.http.url} says it has version {now} instead of {version}")
        if not paused:
            await self.resume()

    async def close(self) -> None:
        """Closes the connections; the server goes on."""
        await self.http.close()

    async def _asked(self, prompt: list[int], parameters: SamplingParameters, left: int) -> Part:
        try:
            return await self._sample(prompt, parameters, left)
        except RequestRefused as error:
            if error.status >= 500:
                raise EngineUnavailable(str(error)) from error
            raise

    @abstractmethod
    async def pause(self) -> None: ...

    @abstractmethod
    async def resume(self) -> None: ...

    @abstractmethod
    async def version(self) -> int: ...

    async def check_routes(self) -> None:
        """Raises `EngineUnsuitable` where one that is needed is missing."""
        schema = await self.http.find("/openapi.json")
        if schema is None:
            raise EngineUnsuitable(f"{self.name} at {self.http.url} hides its routes: start it with /openapi.json on")
        for route, remedy in self.remedies.items():
            if route not in schema["paths"]:
                raise EngineUnsuitable(f"{self.name} at {self.http.url} has no {route}: {remedy}")

    @abstractmethod
    async def tokenize(self, text: str) -> list[int]:
        """The ids of a text, as the server's own tokenizer makes them."""

    @abstractmethod
    async def best_logprob(self, prompt: list[int], temperature: float) -> float:
        """The log-prob of the likeliest next token, as the server reports it at a temperature."""

    @abstractmethod
    async def _sample(self, prompt: list[int], parameters: SamplingParameters, left: int) -> Part:
        """One request for at most `left` tokens."""

    @abstractmethod
    async def _load(self, version: str, path: str) -> None:
        """Called while paused. Loads, labels, and drops every key and value that old weights computed."""


def version_number(label: str) -> int:
    """The policy version that a server's label stands for; `CONTEXT_VERSION`, which no check lets pass, if none."""
    if label == FIRST_WEIGHTS:
        return 0
    return int(label) if label.isdecimal() else CONTEXT_VERSION


def version_of_tokens(spans: Sequence[Mapping[str, Any]] | None, tokens: int) -> tuple[int, ...]:
    """`[{version, start, end}, …]`, as both servers have it, to a version a token; fewer where spans are missing."""
    versions = [version_number(span["version"]) for span in spans or () for _ in range(span["start"], span["end"])]
    return tuple(versions[:tokens])


def logprob_number(value: float | None, *, invalid: float = -math.inf) -> float:
    """NaN for what a server sends in place of it: null, or a number as low as `invalid`."""
    return math.nan if value is None or value <= invalid else float(value)
