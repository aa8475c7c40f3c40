"""What the proxy does not do, and what to do instead: never ignored in silence, always counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class Refused(Exception):
    """An answer other than 200, in the shape of OpenAI's errors."""

    def __init__(self, status: int, message: str, *, code: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.parameter = status, code, parameter

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.parameter, "code": self.code}}


def _nothing(value: object) -> bool:
    return value is None or value in (False, 0, "", [], {})


# Values other than these would change what the log-probs are measured against.
FALSIFYING: dict[str, Callable[[Any], bool]] = dict.fromkeys(
    ("frequency_penalty", "presence_penalty", "logit_bias"), _nothing
) | {"repetition_penalty": lambda value: value in (None, 1)}
# Given by the harness, decided by the run: counted when they differ, never obeyed.
FORCED = ("temperature", "top_p", "top_k", "min_p", "seed")
# Not offered: what is as good as absent, and the alternative.
UNSUPPORTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "n": (lambda value: value in (None, 1), "send that many requests"),
    "stop": (_nothing, "let the model end its turn; cut the text in the agent"),
    "logprobs": (_nothing, "they are in the trajectory, for every token"),
    "top_logprobs": (_nothing, "they are in the trajectory, for every token"),
    "response_format": (lambda v: v is None or v == {"type": "text"}, "ask for JSON in the prompt and check it"),
    "text": (lambda v: v in (None, {}, {"format": {"type": "text"}}), "ask for JSON in the prompt and check it"),
    "tool_choice": (lambda value: value in (None, "auto", "none"), "say in the prompt which tool to call"),
    "parallel_tool_calls": (
        lambda value: value in (None, True),
        "take the first call and drop the others in the agent",
    ),
    "functions": (_nothing, "use `tools`"),
    "function_call": (_nothing, "use `tools`"),
    "modalities": (lambda value: value in (None, ["text"]), "send text"),
    "audio": (_nothing, "send text"),
    "prediction": (_nothing, "leave it out"),
    "web_search_options": (_nothing, "give the model a search tool"),
    "background": (_nothing, "use `stream`, or wait"),
    "background_options": (_nothing, "use `stream`, or wait"),
    "context_management": (_nothing, "fold the context in the agent"),
    "access_programs": (_nothing, "leave it out"),
    "image": (_nothing, "send text"),
    "moderation": (_nothing, "check the answer in the agent"),
    "conversation": (_nothing, "use `previous_response_id`, or send the items"),
    "prompt": (_nothing, "send `instructions` and `input`"),
    "truncation": (lambda value: value in (None, "disabled"), "fold the context in the agent"),
    "chat_template_kwargs": (_nothing, "set the chat template of the run"),
}
# Without meaning for what the model writes here.
HARMLESS = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "verbosity", "reasoning_effort", "reasoning", "include", "stream_options",
    "max_tool_calls",
}  # fmt: skip


@dataclass(frozen=True)
class Treatment:
    """What becomes of a field: `outcome` in a few words, `note` why or what to do instead."""

    outcome: str
    note: str = ""


def treatment(name: str, understood: set[str]) -> Treatment:
    """As `check_fields` decides, for every value that is not as good as absent."""
    if name in UNSUPPORTED:
        alternative = UNSUPPORTED[name][1]
        return Treatment("supported in part, else 501" if name in understood else "501", alternative)
    if name in understood:
        return Treatment("supported")
    if name in FALSIFYING:
        return Treatment("400", "it would falsify the log-probs: leave it out")
    if name in FORCED:
        return Treatment("forced", "the run decides; counted")
    if name in HARMLESS:
        return Treatment("accepted", "without effect here")
    return Treatment("400", "unknown here: leave it out")


def check_fields(request: Mapping[str, Any], *, understood: set[str], unsupported: Counter[str]) -> None:
    """Raises `Refused` (400 or 501) for the first field that would be lost; counts it, and what is overridden."""
    for name, value in request.items():
        if name in understood and name not in UNSUPPORTED:
            continue
        if name in FALSIFYING and not FALSIFYING[name](value):
            unsupported[name] += 1
            raise Refused(
                400,
                f"`{name}` changes the distribution that the log-probs are measured against, so the run can't train on "
                "it: leave it out",
                code="unsupported_parameter",
                parameter=name,
            )
        if name in UNSUPPORTED and not UNSUPPORTED[name][0](value):
            unsupported[name] += 1
            raise Refused(
                501,
                f"`{name}` is not offered here: {UNSUPPORTED[name][1]}",
                code="unsupported_parameter",
                parameter=name,
            )
        if name in FORCED and value is not None:
            unsupported[f"overridden_{name}"] += 1
        elif name not in FALSIFYING and name not in UNSUPPORTED and name not in HARMLESS and name not in FORCED:
            unsupported["unknown_field"] += 1
            raise Refused(
                400,
                f"unknown field `{name}` (it would be lost): leave it out",
                code="unknown_parameter",
                parameter=name,
            )
