"""Unmodified clients in front of real servers, through the capture proxy: every trained token is a sampled token."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp.test_utils import TestServer
from pinnace.rl.capture.capture import Capture
from pinnace.rl.capture.proxy import Proxy
from pinnace.rl.capture.session import Session, Sessions
from pinnace.rl.rollout import Generation, SamplingParameters
from pinnace.rl.server.server import ServerEngine
from pinnace.rl.types import Termination, Trajectory
from pinnace.tiny.task import TOOLS, add

from e2e.gateway import node
from e2e.oracles.agents import agents_python
from tests.rl.engines import Logged, check_every_token

from .conftest import CONTEXT, STRICT, SYSTEM, Reference, Served, until

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TEMPERATURE = 0.6


class LoggedEngine(Logged):
    """The server's adapter, and a note of everything that it sampled."""

    def __init__(self, engine: ServerEngine) -> None:
        super().__init__()
        self._engine = engine

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation:
        made = await self._engine.generate(ids, parameters)
        self.calls.append((tuple(ids), made))
        return made


@dataclass
class Run:
    """The capture proxy in front of one server, with one session at a time."""

    capture: Capture
    engine: LoggedEngine
    url: str
    session: Session

    @property
    def environment(self) -> dict[str, str]:
        return {"OPENAI_BASE_URL": f"{self.url}/v1", "OPENAI_API_KEY": self.session.key}

    @property
    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.session.key, max_retries=0)

    def end(self) -> Trajectory:
        return self.capture.sessions.close(self.session.key, Termination.ANSWERED)


@pytest.fixture
async def run(engine: ServerEngine, served: Served) -> AsyncIterator[Run]:
    sampling = SamplingParameters(temperature=TEMPERATURE, max_tokens=400)
    logged = LoggedEngine(engine)
    capture = Capture(
        engine=logged,
        tokenizer=served.needs.tokenizer,
        sessions=Sessions({"train": sampling, "validation": sampling}),
        context_tokens=CONTEXT,
    )
    server = TestServer(Proxy(capture, model="tiny", control_key="control").app())
    await server.start_server()
    session = capture.sessions.open(id="0-0-0", task_id="41+12", group_id="0")
    yield Run(capture, logged, str(server.make_url("")).rstrip("/"), session)
    await server.close()


def check_trajectory(trajectory: Trajectory, run: Run, reference: Reference) -> None:
    """Token by token what the engine gave, and, independently, log-probs that the trainer finds for it."""
    check_every_token(trajectory, run.engine)
    for part in trajectory.segments:
        for turn in part.turns:
            found = reference.logprobs(part.ids[: turn.start], part.ids[turn.start : turn.end], TEMPERATURE)
            assert list(turn.behaviour_logprobs) == pytest.approx(found, abs=2e-3)


def check_tool_use(trajectory: Trajectory, said: dict[str, Any]) -> None:
    """The agent called its tool, and the next turn joined the same segment."""
    assert said["calls"]
    assert max(len(part.turns) for part in trajectory.segments) >= 2


async def complete(run: Run, messages: list[Any], tools: list[Any]) -> Any:
    reply = await run.client.chat.completions.create(model="any", messages=messages, tools=tools)
    return reply.choices[0].message


async def stream(run: Run, messages: list[Any], tools: list[Any]) -> Any:
    async with run.client.chat.completions.stream(model="any", messages=messages, tools=tools) as events:
        return (await events.get_final_completion()).choices[0].message


@pytest.mark.parametrize("ask", [complete, stream])
async def test_openais_python_client(run: Run, reference: Reference, ask: Callable[..., Awaitable[Any]]) -> None:
    tools = TOOLS if ask is complete else STRICT
    messages: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "41+12"}]
    calls = []
    for _ in range(4):
        message = await ask(run, messages, tools)
        messages.append(message)
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            calls.append(call.function.name)
            result = add(json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    trajectory = run.end()
    check_tool_use(trajectory, {"calls": calls})
    check_trajectory(trajectory, run, reference)


async def said_by(command: Callable[[], subprocess.CompletedProcess[str]]) -> dict[str, Any]:
    ended = await asyncio.to_thread(command)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize("how", ["plain", "stream", "responses"])
async def test_openais_node_client(run: Run, reference: Reference, how: str) -> None:
    said = await said_by(lambda: node.run("agent.mjs", how, project=HERE / "typescript", environment=run.environment))
    trajectory = run.end()
    check_tool_use(trajectory, said)
    check_trajectory(trajectory, run, reference)


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_the_openai_agents_sdk(run: Run, reference: Reference, how: str) -> None:
    python = await asyncio.to_thread(agents_python)
    quiet = {"OPENAI_AGENTS_DISABLE_TRACING": "1", "PYTHONPATH": ""}
    said = await said_by(
        lambda: subprocess.run(
            [python, HERE / "agents_sdk.py", how],
            env={**os.environ, **run.environment, **quiet},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    )
    trajectory = run.end()
    check_tool_use(trajectory, said)
    check_trajectory(trajectory, run, reference)


async def test_an_agent_does_not_notice_that_weights_are_updated(
    run: Run, engine: ServerEngine, served: Served, reference: Reference, other_reference: Reference
) -> None:
    """Its socket is held; the turn has tokens of both versions, and each version's log-probs are its weights'."""
    before = served.next_version()
    await engine.load_weights(before, served.other)  # it talks until its limit
    asked = asyncio.create_task(
        run.client.chat.completions.create(model="any", messages=[{"role": "user", "content": "41+12"}])
    )
    await until(lambda: served.running() > 0)
    after = served.next_version()
    await engine.load_weights(after, served.model)
    await asked
    trajectory = run.end()
    check_every_token(trajectory, run.engine)
    (part,), (turn,) = trajectory.segments, trajectory.turns
    cut = turn.start + turn.policy_versions.index(after)
    assert set(turn.policy_versions) == {before, after}
    old = other_reference.logprobs(part.ids[: turn.start], part.ids[turn.start : cut], TEMPERATURE)
    new = reference.logprobs(part.ids[:cut], part.ids[cut : turn.end], TEMPERATURE)
    assert list(turn.behaviour_logprobs) == pytest.approx(old + new, abs=2e-3)
