"""Three kinds of agent behind one function: task, base URL and key in; an ending out."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from pinnace.agent import (
    DIALECTS,
    NOT_THE_AGENT,
    Agent,
    AnswerRule,
    Budget,
    Endpoint,
    EventLog,
    ModelCounter,
    NoTools,
    Sampling,
    Tools,
    find_policy,
    run,
)
from pinnace.agent import Task as Question
from pinnace.outcome import InvalidSpec
from pinnace.rl.config import AgentConfig, LoopAgent, RunConfig, Task
from pinnace.rl.types import Termination

_STDOUT_BYTES = 2**20


@dataclass(frozen=True)
class Ending:
    """How an attempt ended, and what it answered (None: nothing)."""

    termination: Termination
    answer: str | None = None
    detail: str = ""


Play = Callable[[Task, str, str], Awaitable[Ending]]


def agent_of(config: RunConfig) -> Play:
    """The run's agent. Raises `InvalidSpec` when it can't be found or made."""
    given = config.agent
    if given.function is not None:
        return _function(imported(given.function, "agent.function"))
    if given.command is not None:
        return _command(given)
    return _loop(given.loop or LoopAgent(), config)


def imported(name: str, field: str) -> Callable[..., Any]:
    """What `module:name` names. Raises `InvalidSpec`."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidSpec(f"{field} {name!r}: {error}; write module:function, importable by the sampler") from None
    if not callable(found):
        raise InvalidSpec(f"{field} {name!r} is not callable")
    called: Callable[..., Any] = found
    return called


def _function(function: Callable[..., Any]) -> Play:
    """Its return value is an `Ending`, or the answer."""

    async def play(task: Task, base_url: str, api_key: str) -> Ending:
        if inspect.iscoroutinefunction(function):
            made = await function(task, base_url=base_url, api_key=api_key)
        else:
            made = await asyncio.to_thread(function, task, base_url=base_url, api_key=api_key)
        return made if isinstance(made, Ending) else Ending(Termination.ANSWERED, made)

    return play


def _command(config: AgentConfig) -> Play:
    """Exit code 0: answered, with the last line it printed. Any other: the harness failed, which is nobody's fault."""
    program = config.command or ()

    async def play(task: Task, base_url: str, api_key: str) -> Ending:
        given = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": api_key, "PINNACE_TASK": json.dumps(dict(task))}
        process = await asyncio.create_subprocess_exec(
            *program,
            env=_without_keys() | given,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=_STDOUT_BYTES,
        )
        try:
            out, complaint = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
        if process.returncode != 0:
            said = complaint.decode(errors="replace").strip()[-500:]
            return Ending(Termination.INFRASTRUCTURE, detail=f"exit code {process.returncode}: {said}")
        lines = out.decode(errors="replace").strip().splitlines()
        return Ending(Termination.ANSWERED, lines[-1] if lines else None)

    return play


def _without_keys() -> dict[str, str]:
    """The environment without the run's own key, since an agent has its session's, and without the judge's."""
    return {
        name: value for name, value in os.environ.items() if name not in {"PINNACE_RL_KEY", "PINNACE_JUDGE_API_KEY"}
    }


_ENDED = {
    "answered": Termination.ANSWERED,
    "turns": Termination.TURN_LIMIT,
    "tokens": Termination.CONTEXT_LIMIT,
    "context": Termination.CONTEXT_LIMIT,
    "wall_clock": Termination.TIME_LIMIT,
    "repeats": Termination.REPETITION,
    "duplicate_queries": Termination.REPETITION,
    "malformed": Termination.MALFORMED,
    "no_answer": Termination.MALFORMED,
    "refused": Termination.INFRASTRUCTURE,
}


def _loop(config: LoopAgent, run_config: RunConfig) -> Play:
    """`pinnace.agent`: a task has a `question`, and perhaps a `system` prompt."""
    try:
        policy, rule, dialect = find_policy(config.policy), AnswerRule(config.rule), DIALECTS[config.dialect]
    except (ValueError, KeyError) as error:
        raise InvalidSpec(f"agent.loop: {error}") from None
    if policy.refine is not None or policy.fold is not None:
        raise InvalidSpec(f"agent.loop.policy {policy.name!r} needs a second model, which a run does not have yet")
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    # One for all attempts: to make one reads every certificate of the machine. The proxy is the run's own.
    http = DefaultAsyncHttpxClient(timeout=600, trust_env=False)
    counter = ModelCounter.from_directory(run_config.model)
    budget, sampling = Budget(run_config.context_tokens, run_config.max_tokens), Sampling(run_config.max_tokens)
    tools_of = imported(config.tools, "agent.loop.tools") if config.tools else None

    async def play(task: Task, base_url: str, api_key: str) -> Ending:
        client = AsyncOpenAI(base_url=base_url, api_key=api_key, http_client=http)
        model = Endpoint(client, "policy", sampling)
        agent = Agent(model, counter, budget, policy, config.limits, dialect, rule)
        tools: AbstractAsyncContextManager[Tools] = tools_of(task) if tools_of else nullcontext(NoTools())
        question = Question(str(task["question"]), str(task.get("system", config.system)))
        async with tools as given:
            ended = await run(question, agent, given, EventLog())
        failed = ended.termination in NOT_THE_AGENT
        termination = Termination.INFRASTRUCTURE if failed else _ENDED[ended.termination]
        return Ending(termination, ended.answer)

    return play
