"""Agents of every kind, and what they earn: unknown where nobody can tell, never wrong by accident."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from pinnace.chat import ChatTokenizer
from pinnace.outcome import InvalidData, InvalidSpec
from pinnace.rl.capture.capture import Capture
from pinnace.rl.capture.proxy import Proxy
from pinnace.rl.capture.session import Sessions
from pinnace.rl.config import RunConfig
from pinnace.rl.rollout import SamplingParameters
from pinnace.rl.sampler.agents import Ending, agent_of
from pinnace.rl.sampler.reward import reward_of
from pinnace.rl.types import InvalidReward, Reward, Termination, Trajectory
from pinnace.tiny.model import write_tiny_model

from .conftest import trajectory
from .engines import ScriptedEngine
from .runs import document

TASK = {"id": "t", "question": "1+1"}
ANSWERED = Ending(Termination.ANSWERED, "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("players") / "tiny"
    write_tiny_model(made)
    return made


def config(folder: Path, model: Path, **more: Any) -> RunConfig:
    return RunConfig.model_validate(document(folder, model, **more))


async def play_program(tmp_path: Path, model: Path, program: str) -> Ending:
    command = [sys.executable, "-c", program]
    return await agent_of(config(tmp_path, model, agent={"command": command}))(TASK, "http://here/v1", "key")


async def test_a_program_finds_its_endpoint_its_key_and_its_task_and_prints_its_answer(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINNACE_RL_KEY", "the run's own")
    monkeypatch.setenv("PINNACE_JUDGE_API_KEY", "the judge's")
    ending = await play_program(
        tmp_path, model,
        "import json, os; e = os.environ; print('thinking'); "
        "print(e['OPENAI_BASE_URL'], e['OPENAI_API_KEY'], json.loads(e['PINNACE_TASK'])['id'], "
        "[name for name in e if name.startswith('PINNACE_') and name.endswith('_KEY')])",
    )  # fmt: skip
    assert ending == Ending(Termination.ANSWERED, "http://here/v1 key t []")


async def test_a_program_that_fails_says_nothing_about_the_policy(tmp_path: Path, model: Path) -> None:
    ending = await play_program(tmp_path, model, "raise SystemExit('no disk')")
    assert ending.termination is Termination.INFRASTRUCTURE
    assert "exit code 1: no disk" in ending.detail
    assert await reward_of(lambda *_: 1.0, TASK, ending, trajectory()) == Reward.unknown(
        "infrastructure", ending.detail
    )


@dataclass
class Grade:
    verdict: str
    explanation: str = ""


def broken(task: Any, answer: Any) -> float:
    raise ZeroDivisionError("no reference")


async def judge(task: Any, answer: str) -> float:
    return float(answer == "2")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda _, answer: answer == "2", Reward.right()),
        (lambda *_: 0, Reward.wrong()),
        (lambda *_: -0.5, Reward.wrong(-0.5)),
        (judge, Reward.right()),
        (lambda *_: None, Reward.unknown("judge", "the reward function can't tell")),
        (lambda *_: Grade("right"), Reward.right()),
        (lambda *_: Grade("wrong"), Reward.wrong()),
        (lambda *_: Grade("unknown", "the judge is away"), Reward.unknown("judge", "the judge is away")),
        (broken, Reward.unknown("judge", "ZeroDivisionError: no reference")),
    ],
)
async def test_what_a_reward_function_says_is_right_wrong_or_unknown(function: Any, expected: Reward) -> None:
    assert await reward_of(function, TASK, ANSWERED, trajectory()) == expected


async def test_a_reward_that_is_no_number_is_unknown_and_not_trained_on() -> None:
    made = await reward_of(lambda *_: float("nan"), TASK, ANSWERED, trajectory())
    assert (made.value, made.cause) == (None, "judge")
    assert InvalidReward.__name__ in made.detail


async def test_without_a_function_the_harness_posted_reward_counts() -> None:
    assert await reward_of(None, TASK, ANSWERED, trajectory(reward=0.75)) == Reward.right(0.75)
    silent = trajectory(reward=Reward.unknown("infrastructure", "the session ended without a reward"))
    assert (await reward_of(None, TASK, ANSWERED, silent)).value is None
    assert await reward_of(None, TASK, Ending(Termination.TIME_LIMIT), silent) == Reward.wrong()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"schedule": {"groupsPerStep": 1, "groupSize": 1, "maxStaleness": 0, "concurrency": 4}}, "at least 2 attempts"),
    ({"schedule": {"groupsPerStep": 1, "groupSize": 4, "maxStaleness": 0, "concurrency": 2}}, "holds no group"),
    ({"contextTokens": 5000, "engine": {"tokenBudget": 9000}}, "the model has 4096"),
    ({"engine": {"tokenBudget": 100}}, "would fit no micro-batch"),
    ({"trainerProcesses": 2}, "kind to deepspeed"),
    ({"agent": {"function": "a:b", "command": ["c"]}}, "exactly one"),
    ({"agent": {"function": "no_such_module:play"}}, "agent.function 'no_such_module:play'"),
    ({"agent": {"loop": {"policy": "refine"}}}, "needs a second model"),
    ({"reward": "tests.rl.players:nothing"}, "reward 'tests.rl.players:nothing'"),
    (
        {"servers": [{"kind": "other", "url": "http://x"}]},
        "servers.0.kind: Input should be 'reference'",
    ),
    ({"loss": {"name": "ppo"}}, "loss.name: 'ppo' is not known: use grpo"),
    ({"loss": {"corrections": {"magic": {}}}}, "loss.corrections: 'magic'"),
    ({"learningRate": 1}, "learningRate: Extra inputs"),
    ({"denoising": {"longFailure": "keep"}}, "denoising.longFailure"),
]


@pytest.mark.parametrize(("more", "told"), BAD)
def test_a_configuration_that_can_not_work_is_refused_before_anything_starts(
    tmp_path: Path, model: Path, more: dict[str, Any], told: str
) -> None:
    from pinnace.rl import processes, trainer_process

    path = tmp_path / "run.json"
    path.write_text(json.dumps(document(tmp_path, model, **more)))
    with pytest.raises(InvalidSpec, match=told):
        trainer_process.check(given := RunConfig.read(path))
        processes.check(given)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "has no tasks"),
        ("{", "1: no JSON"),
        ("[]", "1: a task is"),
        ('{"id": "a"}\n{"id": "a"}', ":2: .*of its own"),
    ],
)
def test_tasks_that_can_not_be_told_apart_are_refused(tmp_path: Path, model: Path, lines: str, told: str) -> None:
    given = config(tmp_path, model)
    given.tasks.write_text(lines)
    with pytest.raises(InvalidData, match=told):
        given.check()


def test_a_reward_function_looks_at_all_tasks_before_anything_starts(tmp_path: Path, model: Path) -> None:
    from pinnace.rl import processes

    given = config(tmp_path, model, reward="pinnace.evals.rewards:number")
    given.tasks.write_text('{"id": "a", "question": "1+1", "answer": "2"}\n{"id": "b", "question": "?", "answer": "x"}')
    with pytest.raises(InvalidData, match="tasks: the reference 'x' is not a number"):
        processes.check(given)


class Proxied:
    """A real proxy before a scripted engine, and a session in it."""

    def __init__(self, model: Path, texts: list[str]) -> None:
        tokenizer = ChatTokenizer.from_directory(model)
        sampling: Any = {"train": SamplingParameters(max_tokens=64)}
        engine = ScriptedEngine(tokenizer, texts)
        self.capture = Capture(engine=engine, tokenizer=tokenizer, sessions=Sessions(sampling), context_tokens=512)
        self.session = self.capture.sessions.open(id="0-0-0", task_id="t", group_id="0")

    async def play(self, config: RunConfig) -> tuple[Ending, Trajectory]:
        app = Proxy(self.capture, model="policy", control_key="k").app()
        async with TestServer(app) as served:
            base = str(served.make_url(f"/session/{self.session.key}/v1"))
            ending = await agent_of(config)(TASK, base, self.session.key)
        return ending, self.capture.sessions.close(self.session.key, ending.termination)


async def test_our_own_loop_plays_through_the_proxy(tmp_path: Path, model: Path) -> None:
    given = config(tmp_path, model, agent={"loop": {"limits": {"turns": 4}}}, contextTokens=512, maxTokens=64)
    ending, trajectory = await Proxied(model, ["hm <answer>2</answer><|im_end|>"]).play(given)
    assert (ending.termination, ending.answer) == (Termination.ANSWERED, "2")
    assert len(trajectory.turns) == 1


async def test_our_own_loop_tells_a_limit_from_an_answer(tmp_path: Path, model: Path) -> None:
    limits = {"turns": 2, "noAnswer": 9}
    given = config(tmp_path, model, agent={"loop": {"rule": "tag", "limits": limits}}, contextTokens=512, maxTokens=64)
    ending, _ = await Proxied(model, [f"hm {word}<|im_end|>" for word in ("so", "and", "but", "or")]).play(given)
    assert ending.termination is Termination.TURN_LIMIT


async def test_an_agent_whose_context_is_full_has_reached_a_limit_and_not_failed(tmp_path: Path, model: Path) -> None:
    proxied = Proxied(model, [])
    proxied.session.context_exhausted = True
    assert proxied.capture.sessions.close(proxied.session.key, Termination.INFRASTRUCTURE).termination is (
        Termination.CONTEXT_LIMIT
    )
