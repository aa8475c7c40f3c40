"""One trajectory while an agent plays it: who it is, what it said, and how it is answered."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pinnace.chat import Conversation, Message
from pinnace.rl.rollout import SamplingParameters
from pinnace.rl.types import Reward, Termination, Trajectory

from .merge import History
from .prompt import Exchange
from .refusal import Refused

Mode = Literal["train", "validation"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said, and what it cost."""

    id: str
    message: Message
    finish: Literal["stop", "length", "tool_calls"]
    prompt_tokens: int
    output_tokens: int


@dataclass(kw_only=True)
class Session:
    """`key` is the API key that the agent is given. Everything else is the run's business."""

    id: str
    task_id: str
    group_id: str
    mode: Mode
    key: str = field(default_factory=lambda: f"pn-{secrets.token_urlsafe(24)}")
    history: History = field(default_factory=History)
    exchanges: list[Exchange] = field(default_factory=list)
    responses: dict[str, Conversation] = field(default_factory=dict)  # by id, for `previous_response_id`
    reward: Reward | None = None
    context_exhausted: bool = False
    opened: float = field(default_factory=time.monotonic)

    def trajectory(self, termination: Termination) -> Trajectory:
        """What was sampled. Without a reward the verdict is unknown: nobody said anything about it."""
        unexplained = termination in {Termination.ANSWERED, Termination.INFRASTRUCTURE}
        if self.context_exhausted and unexplained and self.reward is None:
            termination = Termination.CONTEXT_LIMIT
        return Trajectory(
            id=self.id,
            task_id=self.task_id,
            group_id=self.group_id,
            segments=self.history.segments,
            reward=self.reward or Reward.unknown("infrastructure", "the session ended without a reward"),
            termination=termination,
        )


class Sessions:
    """The open sessions by key, and how each mode samples: the agent has no say in it."""

    def __init__(self, sampling: Mapping[Mode, SamplingParameters]) -> None:
        self.sampling = sampling
        self._open: dict[str, Session] = {}

    def open(self, *, id: str, task_id: str, group_id: str, mode: Mode = "train") -> Session:  # noqa: A002
        """A new session; its key is the agent's `OPENAI_API_KEY`. Raises KeyError for a mode without sampling."""
        _ = self.sampling[mode]
        session = Session(id=id, task_id=task_id, group_id=group_id, mode=mode)
        self._open[session.key] = session
        return session

    def find(self, key: str | None) -> Session:
        """Raises `Refused` (401) for a key that is not, or no longer, a session's."""
        if key is None or key not in self._open:
            raise Refused(
                401,
                "no open session has this key: set OPENAI_API_KEY (or the header X-Pinnace-Session, or the path "
                "/session/<key>/v1) to the key that opening the session returned",
                code="invalid_api_key",
            )
        return self._open[key]

    def close(self, key: str, termination: Termination) -> Trajectory:
        """Ends a session; later calls with its key get 401."""
        session = self.find(key)
        del self._open[key]
        return session.trajectory(termination)

    def expire(self, seconds: float) -> int:
        """Forgets sessions that were opened so long ago that their sampler must have died; returns how many."""
        old = [key for key, session in self._open.items() if session.opened < time.monotonic() - seconds]
        for key in old:
            del self._open[key]
        return len(old)
