"""What a rollout engine offers: token ids in, token ids out, with a log-prob and a policy version for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class EngineUnavailable(ConnectionError):
    """The engine did not answer; asking again, or another replica, may help."""


@dataclass(frozen=True, kw_only=True)
class SamplingParameters:
    """How every token is drawn. Log-probs are of this distribution: after temperature, over the whole vocabulary.

    There is no top-p or top-k here: what they cut off would have no log-probability.
    """

    temperature: float = 1.0
    max_tokens: int = 4096
    stop_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One answer; `ids` include the stop token when there is one.

    `abort`: a weight update cut it short. Whoever asked goes on from the tokens it has; the versions tell them apart.
    """

    ids: tuple[int, ...]
    behaviour_logprobs: tuple[float, ...]
    policy_versions: tuple[int, ...]
    finish: Literal["stop", "length", "abort"]


class RolloutEngine(Protocol):
    """Tokens for tokens. Raises `EngineUnavailable`; returns whatever the server said, which the caller checks."""

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation: ...


class RolloutServer(RolloutEngine, Protocol):
    """One model server, whose weights follow the trainer's. Every call raises `EngineUnavailable`."""

    async def load_weights(self, version: int, uri_or_path: str) -> None:
        """Takes the weights of a Hugging Face folder; what was computed with the old ones (prefix cache) is dropped."""

    async def pause(self) -> None:
        """No token is drawn until `resume`: running requests are held, or come back with `abort`; new ones wait."""

    async def resume(self) -> None:
        """Goes on."""

    async def version(self) -> int:
        """Of the weights that are loaded; -1 before the first `load_weights`."""
