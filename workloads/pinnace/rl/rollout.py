"""What a rollout engine offers: token ids in, token ids out, with a log-prob and a policy version for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, Protocol


class EngineUnavailable(ConnectionError):
    """The engine did not answer; asking again, or another replica, may help."""


class EngineUnsuitable(RuntimeError):
    """The engine can't be used as it was started, or refuses what it is asked; the message says what to change."""


class WeightsNotLoaded(RuntimeError):
    """The engine did not take the weights, and stays paused: load again and `resume`, or end it."""


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
    """One answer; `ids` include the stop token when there is one."""

    ids: tuple[int, ...]
    behaviour_logprobs: tuple[float, ...]
    policy_versions: tuple[int, ...]
    finish: Literal["stop", "length"]


class TokenSource(Protocol):
    """What capture needs."""

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation:
        """Samples once. Returns whatever the server said, which the caller checks (`pinnace.rl.types.check_tokens`)."""
        ...


class RolloutEngine(TokenSource, Protocol):
    """A model server. Every method raises `EngineUnavailable` when it does not answer."""

    async def load_weights(self, version: int, path: PurePath) -> None:
        """Weights from a Hugging Face folder, `path` as the server sees it; `version` labels every later token.

        Requests that run are held, and go on with the new weights: their key-value caches are computed again. The
        engine is resumed only if it was not paused before. Raises `WeightsNotLoaded`.
        """
        ...

    async def pause(self) -> None:
        """Stops sampling. Running and new requests are held, with their sockets, until `resume`."""
        ...

    async def resume(self) -> None:
        """Goes on with what was held."""
        ...

    async def version(self) -> int:
        """The weights that the next token comes from; 0 for those that the server was started with.

        Answers during a pause too, so it tells whether the server lives.
        """
        ...
