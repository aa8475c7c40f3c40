"""Find out which server answers, and refuse it at the start where it lacks something: never during the run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pinnace.chat import ChatTokenizer
from pinnace.rl.rollout import EngineUnavailable, EngineUnsuitable, SamplingParameters
from pinnace.rl.types import InvalidTurn, check_tokens

from .http import Http
from .server import ServerEngine
from .sglang import SGLangEngine
from .vllm import VLLMEngine

# Digits, spaces, accents, scripts and what looks like markup: tokenizers that agree on it are the same.
_TEXT = "The sum of 1234 and 5.6 is\n\n  1239.6 - naïve café, 東京 🙂 <think>def f(x):\n\treturn x</think><|im_end|>\n"
_PROMPT_TOKENS = 8
_SAMPLE_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run asks of a server: its tokenizer, and the longest prompt with its answer."""

    tokenizer: ChatTokenizer
    context_tokens: int


async def connect(
    url: str, needs: Needs, *, api_key: str | None = None, request_seconds: float = 3600, resume: bool = False
) -> ServerEngine:
    """The engine at `url`; `close` it.

    `resume` is for who controls the server: one that a killed controller left paused goes on, so load weights next.
    Raises `EngineUnavailable` when nothing answers (it may still be starting: ask again), and `EngineUnsuitable`, with
    the remedy, when it can't be used as it was started.
    """
    http = Http(url, api_key=api_key, request_seconds=request_seconds)
    try:
        engine = await _identify(http)
        await engine.check_routes()
        await _check_model(engine, needs)
        if resume:
            await engine.resume()
        await _check_tokens(engine, needs)
    except BaseException:
        await http.close()
        raise
    return engine


async def _identify(http: Http) -> ServerEngine:
    kinds: dict[str, type[ServerEngine]] = {"/model_info": SGLangEngine, "/version": VLLMEngine}
    for route, kind in kinds.items():
        if await http.find(route) is not None:
            models = (await http.get("/v1/models"))["data"]
            return kind(http, model=models[0]["id"], context_tokens=models[0]["max_model_len"])
    raise EngineUnsuitable(f"neither SGLang nor vLLM answers at {http.url}: give the address of a rollout server")


async def _check_model(engine: ServerEngine, needs: Needs) -> None:
    if engine.context_tokens < needs.context_tokens:
        raise EngineUnsuitable(
            f"{engine.name} at {engine.http.url} has a context of {engine.context_tokens} tokens, the run needs "
            f"{needs.context_tokens}: start it with a longer one, or lower the run's"
        )
    if await engine.tokenize(_TEXT) != needs.tokenizer.encode(_TEXT):
        raise EngineUnsuitable(
            f"{engine.name} at {engine.http.url} has another tokenizer than the trainer: serve the trained model"
        )


async def _check_tokens(engine: ServerEngine, needs: Needs) -> None:
    """Samples a few tokens: counts, versions, and whose log-probs they are."""
    prompt = needs.tokenizer.encode(_TEXT)[:_PROMPT_TOKENS]
    try:
        async with asyncio.timeout(_SAMPLE_SECONDS):
            made = await engine.generate(prompt, SamplingParameters(max_tokens=2))
    except TimeoutError:
        raise EngineUnavailable(
            f"{engine.name} at {engine.http.url} sampled nothing in {_SAMPLE_SECONDS} s: it may be paused"
        ) from None
    try:
        check_tokens(len(made.ids), made.behaviour_logprobs, made.policy_versions)
    except InvalidTurn as error:
        raise EngineUnsuitable(
            f"{engine.name} at {engine.http.url} does not say what it samples ({error}): use SGLang 0.5.23, vLLM 0.32, "
            "or later"
        ) from error
    if await engine.best_logprob(prompt, 1.0) == await engine.best_logprob(prompt, 2.0):
        raise EngineUnsuitable(
            f"{engine.name} at {engine.http.url} gives log-probs before temperature: {engine.own_logprobs}"
        )
