"""Questions to the endpoint before an evaluation starts: is the model there, long enough, and can it call tools?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pinnace.agent import Agent

from .errors import BadPlan, EndpointDown
from .plan import Plan

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_PROBE: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "Does nothing.",
        "parameters": {"type": "object", "properties": {}},
    },
}


@dataclass(frozen=True)
class Served:
    """What a server says of a model; `context` in tokens, None if it does not say."""

    model: str
    context: int | None


async def look(client: AsyncOpenAI, model: str | None) -> Served:
    """The model at an endpoint; the only one there if `model` is None. Raises `BadPlan` naming those there are."""
    import openai

    try:
        listed = [each async for each in client.models.list()]
    except openai.APIConnectionError as error:
        told = error.__cause__ or error
        raise EndpointDown(f"{client.base_url} does not answer ({told}): is the server up?") from None
    except openai.NotFoundError:
        if model is None:
            raise BadPlan(f"{client.base_url} does not list its models: give --model") from None
        return Served(model, None)  # not every server has the list
    except openai.APIStatusError as error:
        raise BadPlan(f"{client.base_url}: HTTP {error.status_code}: check address and API key") from None
    names = [each.id for each in listed]
    if model is None and len(names) == 1:
        model = names[0]
    found = next((each for each in listed if each.id == model), None)
    if found is None:
        asked = "give --model" if model is None else f"it has no model {model!r}"
        raise BadPlan(f"{client.base_url}: {asked}; there are: {', '.join(names[:10]) or 'none'}")
    length = (found.model_extra or {}).get("max_model_len")
    return Served(found.id, int(length) if length else None)


def check_context(served: Served, context: int | None, reserve: int) -> int:
    """The context to plan with, in tokens. Raises `BadPlan` if it is longer than the server's, or has no room."""
    if context is None and served.context is None:
        raise BadPlan("the server does not say how long its context is: give --context")
    if context is not None and served.context is not None and context > served.context:
        raise BadPlan(
            f"--context {context} is longer than the server's {served.context}: lower it, or serve a longer context"
        )
    chosen = context or served.context or 0
    if chosen <= 2 * reserve:
        raise BadPlan(
            f"a context of {chosen} leaves too little beside --max-tokens {reserve}: lower the latter below half"
        )
    return chosen


def check_room(plan: Plan, agent: Agent, tools: Sequence[Mapping[str, Any]]) -> None:
    """Whether a turn fits beside the tools' definitions and the longest question. Raises `BadPlan`."""
    task = max(map(plan.task, plan.loaded.items), key=lambda each: len(each.question))
    messages = [{"role": "system", "content": task.system}, {"role": "user", "content": task.question}]
    opening, context, turn = agent.counter.head(messages, tools), agent.budget.context, agent.budget.reserve
    if opening + turn > agent.budget.limit:
        raise BadPlan(
            f"{len(tools)} tool definitions and the longest question need {opening} tokens of a context of {context}, "
            f"in which a turn may have {turn}: choose tools by --offer, or serve a longer context"
        )


async def check_tools(client: AsyncOpenAI, model: str) -> None:
    """Whether the server takes native tool calls. Raises `BadPlan` with the remedy."""
    import openai

    request: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "tools": [_PROBE],
        "tool_choice": "auto",
        "max_tokens": 1,
    }
    try:
        await client.chat.completions.create(**request)
    except openai.BadRequestError as error:
        told = str(error.body)[:300]
        raise BadPlan(
            f"{model} does not take native tool calls ({told}): serve it with a tool parser (vLLM: "
            "--enable-auto-tool-choice --tool-call-parser hermes; SGLang: --tool-call-parser qwen25), or use "
            "--dialect hermes"
        ) from None
    except openai.APIError:
        return  # busy or slow is for the run's own patience
