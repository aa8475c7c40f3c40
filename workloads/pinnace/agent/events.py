"""What happens in a trajectory, as facts that are only ever appended."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Termination = Literal[
    "answered",
    "turns",
    "tokens",
    "wall_clock",
    "context",
    "repeats",
    "duplicate_queries",
    "malformed",
    "no_answer",
    "tool_infrastructure",
    "model_unavailable",
    "refused",
]
"""Why a trajectory ended. `tool_infrastructure` and `model_unavailable` are not the agent's doing."""
NOT_THE_AGENT: frozenset[Termination] = frozenset({"tool_infrastructure", "model_unavailable"})


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Call(_Fact):
    """One tool call. `id` is ours and unique in the log, whatever the model wrote.

    With `problem` the call is malformed: `arguments` is empty, `raw` is what the model wrote.
    """

    id: str
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    raw: str | None = None
    problem: str | None = None

    @cached_property
    def text(self) -> str:
        """The arguments as JSON, as the model is shown them; made once, since every view needs it."""
        return json.dumps(self.arguments, ensure_ascii=False)

    @cached_property
    def key(self) -> str:
        """Equal for two calls of the same tool with the same arguments, in whatever order and letter case."""
        return f"{self.name} {json.dumps(self.arguments, sort_keys=True, ensure_ascii=False).casefold()}"


class Usage(_Fact):
    """Tokens of one model call; `cached` are those of the prompt that the server had already."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


class Sampled(_Fact):
    """Exact token ids of one model call, where the engine gives them: what RL trains on."""

    prompt_ids: tuple[int, ...] = ()
    completion_ids: tuple[int, ...] = ()
    behaviour_logprobs: tuple[float, ...] = ()
    policy_version: int | None = None


class _Event(_Fact):
    t: float = 0.0
    """Active seconds since the trajectory began; time between a crash and the resumption does not count."""


class Began(_Event):
    """The task and everything that shapes the view besides the policy."""

    kind: Literal["began"] = "began"
    question: str
    system: str = ""
    images: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    model: str = ""
    policy: str = ""
    policy_hash: str = ""


class Turned(_Event):
    """The model's turn: thoughts, text and calls kept apart. `view_tokens` is our count of what it was shown.

    `forced` is the limit for which it had to answer.
    """

    kind: Literal["turned"] = "turned"
    content: str = ""
    reasoning: str | None = None
    calls: tuple[Call, ...] = ()
    finish: str = "stop"
    usage: Usage = Usage()
    view_tokens: int = 0
    seconds: float = 0.0
    forced: Termination | None = None
    sampled: Sampled | None = None


class Replied(_Event):
    """A tool's reply, raw. `outcome` is the gateway's word."""

    kind: Literal["replied"] = "replied"
    call: str
    name: str
    outcome: str
    text: str
    seconds: float = 0.0
    meta: dict[str, Any] = Field(default_factory=dict)


class Refined(_Event):
    """What the model sees instead of a raw reply. `spans` are [start, end) characters of the raw text.

    `fallback` says why the second model's text was not used; then the reply is cut instead.
    """

    kind: Literal["refined"] = "refined"
    call: str
    text: str
    spans: tuple[tuple[int, int], ...] = ()
    unsupported: int = 0
    fallback: str | None = None
    cached: bool = False
    usage: Usage = Usage()


class Folded(_Event):
    """Steps that began before event number `before` are replaced by `text`."""

    kind: Literal["folded"] = "folded"
    before: int
    text: str
    mode: Literal["summary", "discard"] = "summary"
    unsupported: int = 0
    fallback: str | None = None
    usage: Usage = Usage()


class Nudged(_Event):
    """A word from the harness to the model."""

    kind: Literal["nudged"] = "nudged"
    reason: str
    text: str
    detail: str = ""


class Overflowed(_Event):
    """The server found the prompt too long, though we counted `counted` tokens: later views keep further away."""

    kind: Literal["overflowed"] = "overflowed"
    counted: int
    message: str = ""


class Ended(_Event):
    """The end. `response` is the model's last text, which graders may want whole; `forced`: it was asked to answer."""

    kind: Literal["ended"] = "ended"
    termination: Termination
    answer: str | None = None
    response: str = ""
    forced: bool = False
    detail: str = ""


Event = Annotated[
    Began | Turned | Replied | Refined | Folded | Nudged | Overflowed | Ended, Field(discriminator="kind")
]
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def encode(event: Event) -> bytes:
    """One line of JSON, without the line end."""
    return event.model_dump_json(exclude_defaults=False, exclude_none=True).encode()


def decode(line: bytes | str) -> Event:
    """The reverse of `encode`. Raises pydantic's `ValidationError` (a `ValueError`)."""
    return _ADAPTER.validate_json(line)
