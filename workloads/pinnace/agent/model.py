"""The model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .events import Sampled, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

_TOO_LONG = ("context length", "context_length", "maximum context", "too long", "max_model_len", "context window")
_RETRIED = frozenset({408, 409, 425, 429})


class ModelError(Exception):
    """The model could not answer."""


class ModelUnavailable(ModelError):
    """The endpoint did not answer in time, for all our patience. Not the agent's doing."""


class ModelRefused(ModelError):
    """The endpoint will not answer this request, however often it is asked; the message has its words."""


class ContextTooLong(ModelError):
    """The endpoint counts more tokens than its context has."""


@dataclass(frozen=True)
class ToolRequest:
    """A native tool call as the server gave it; `arguments` is text that may not be JSON."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """One completion."""

    content: str
    reasoning: str | None = None
    calls: tuple[ToolRequest, ...] = ()
    finish: str = "stop"
    usage: Usage = field(default_factory=Usage)
    sampled: Sampled | None = None


class Model(Protocol):
    """What the loop asks: an endpoint, an RL engine, or a test."""

    @property
    def name(self) -> str:
        """For reports."""

    async def complete(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], *, may_call: bool = True
    ) -> Reply:
        """One completion. With `may_call` false the tools are shown but must not be called.

        Raises:
            ModelUnavailable, ModelRefused, ContextTooLong
        """


@dataclass(frozen=True)
class Sampling:
    """How to sample. `extra` goes into the request as it is (`top_k`, `chat_template_kwargs`, `return_token_ids`)."""

    max_tokens: int = 4096
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def request(self) -> dict[str, Any]:
        """Fields of the request."""
        fields = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": list(self.stop) or None,
            "extra_body": dict(self.extra) or None,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Patience:
    """How long to go on asking an endpoint that fails: seconds in all, and of the longest wait between two tries."""

    give_up_after: float = 600
    cap: float = 30
    first: float = 0.5


class Endpoint:
    """`Model` on the official client, which does no retries of its own here: ours are bounded by time and counted."""

    def __init__(
        self,
        client: AsyncOpenAI,
        model: str,
        sampling: Sampling | None = None,
        *,
        patience: Patience | None = None,
    ) -> None:
        self.name = model
        self.sampling = sampling or Sampling()
        self.retries = 0
        self._client = client.with_options(max_retries=0)
        self._patience = patience or Patience()

    @classmethod
    def at(
        cls, base_url: str, model: str, sampling: Sampling | None = None, *, api_key: str = "none", timeout: float = 600
    ) -> Endpoint:
        """An endpoint by its address (`http://host:port/v1`); `timeout` in seconds is one request's."""
        from openai import AsyncOpenAI

        return cls(AsyncOpenAI(base_url=base_url, api_key=api_key, timeout=timeout), model, sampling)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def complete(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], *, may_call: bool = True
    ) -> Reply:
        fields: dict[str, Any] = {"model": self.name, "messages": list(messages), **self.sampling.request()}
        if tools:
            fields |= {"tools": list(tools), "tool_choice": "auto" if may_call else "none"}
        return read_reply(await self._insist(fields))

    async def _insist(self, fields: Mapping[str, Any]) -> ChatCompletion:
        import openai

        began, wait = time.monotonic(), self._patience.first
        while True:
            try:
                answer: ChatCompletion = await self._client.chat.completions.create(**fields)
            except openai.APIStatusError as error:
                told = _words(error)
                if error.status_code in {400, 413, 422} and any(sign in told.lower() for sign in _TOO_LONG):
                    raise ContextTooLong(told) from None
                if error.status_code not in _RETRIED and error.status_code < 500:
                    raise ModelRefused(_remedy(error.status_code, told, self.name)) from None
                last, asked = f"HTTP {error.status_code}: {told}", error.response.headers.get("retry-after")
            except openai.APIConnectionError as error:  # a timeout is one, too
                last, asked = f"{type(error).__name__}: {error.__cause__ or error}", None
            else:
                if answer.choices:
                    return answer
                last, asked = "the answer has no choices", None
            if time.monotonic() - began + wait > self._patience.give_up_after:
                where, seconds = self._client.base_url, self._patience.give_up_after
                raise ModelUnavailable(f"{where}: {last}; gave up after {seconds} s")
            self.retries += 1
            pause = float(asked) if asked and asked.isdigit() else wait * random.uniform(0.5, 1)  # noqa: S311 - jitter
            await asyncio.sleep(min(pause, self._patience.cap))
            wait = min(wait * 2, self._patience.cap)


def read_reply(answer: ChatCompletion) -> Reply:
    """From the client's object. Thoughts come as `reasoning_content` or `reasoning`, by server."""
    choice = answer.choices[0]
    message = choice.message
    extra = message.model_extra or {}
    reasoning = extra.get("reasoning_content") or extra.get("reasoning")
    calls = tuple(
        ToolRequest(call.function.name, call.function.arguments or "")
        for call in message.tool_calls or ()
        if call.type == "function"
    )
    finish = "refused" if message.refusal else str(choice.finish_reason or "stop")
    return Reply(message.refusal or message.content or "", reasoning, calls, finish, _usage(answer), _sampled(answer))


def _usage(answer: ChatCompletion) -> Usage:
    usage = answer.usage
    if usage is None:
        return Usage()
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details else 0
    return Usage(prompt=usage.prompt_tokens, completion=usage.completion_tokens, cached=cached)


def _sampled(answer: ChatCompletion) -> Sampled | None:
    """Token ids as vLLM gives them for `return_token_ids`; log-probabilities if they were asked for."""
    choice = answer.choices[0]
    ids = (choice.model_extra or {}).get("token_ids")
    if not ids:
        return None
    prompt = (answer.model_extra or {}).get("prompt_token_ids") or ()
    logprobs = tuple(each.logprob for each in choice.logprobs.content or ()) if choice.logprobs else ()
    return Sampled(prompt_ids=tuple(prompt), completion_ids=tuple(ids), behaviour_logprobs=logprobs)


def _words(error: Any) -> str:
    body = error.body
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or json.dumps(body)
    return str(body or error.message)[:1000]


def _remedy(status: int, told: str, model: str) -> str:
    hints = {
        401: "check the API key",
        403: "check the API key's rights",
        404: f"check the base URL (it ends with /v1) and that the server has a model {model!r}",
    }
    return f"HTTP {status}: {told}" + (f"; {hints[status]}" if status in hints else "")
