"""EvalSuite's graders as an RLRun's rewards: right, wrong, or unknown where a judge fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pinnace.cli import build
from pinnace.evals import rewards
from pinnace.rl.sampler.agents import Ending
from pinnace.rl.sampler.reward import reward_of
from pinnace.rl.types import Termination, Verdict
from typer.testing import CliRunner, Result

from e2e.faults.model import Answer, Request, Trouble
from e2e.faults.threads import serving
from e2e.synthetic import questions, write
from tests.rl.conftest import trajectory

TASK = {"id": "t", "question": "How high?", "answer": "1,500"}


async def verdict(reward: Any, answer: str | None) -> Verdict:
    ending = Ending(Termination.ANSWERED, answer)
    return (await reward_of(reward, TASK, ending, trajectory("t"))).verdict


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [("exact", "1,500 ", "1500"), ("exact_ignoring_case", "1,500", "1500"), ("number", "$1500.0", "1501"),
     ("gaia", "1, 500", "500, 1")],
)  # fmt: skip
async def test_a_rule_decides(rule: str, right: str, wrong: str) -> None:
    reward = getattr(rewards, rule)
    assert await verdict(reward, right) is Verdict.RIGHT
    assert await verdict(reward, wrong) is Verdict.WRONG
    assert await verdict(reward, None) is Verdict.WRONG


async def test_a_judge_decides_and_one_that_fails_makes_the_reward_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def judge(request: Request) -> Answer | Trouble:
        asked.append(str(request["messages"][0]["content"]))
        if "a mile" in asked[-1]:
            return Trouble(400)
        return Answer("extracted_final_answer: x\nreasoning: y\ncorrect: yes\nconfidence: 100%")

    with serving(judge) as model:
        monkeypatch.setenv("PINNACE_JUDGE_URL", model.url)
        monkeypatch.setenv("PINNACE_JUDGE_MODEL", "judge")
        rewards._judge.cache_clear()
        assert await verdict(rewards.judged, "fifteen hundred") is Verdict.RIGHT
        assert await verdict(rewards.judged, "a mile") is Verdict.UNKNOWN
        rewards._judge.cache_clear()
    assert "How high?" in asked[0]
    assert "fifteen hundred" in asked[0]


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"answer": "1"}, "needs a `question`"),
        ({"question": "?"}, "and an `answer`"),
        ({"question": "?", "answer": " "}, "and an `answer`"),
        ({"question": "?", "answer": "tall"}, "not a number"),
    ],
)
def test_a_task_that_can_not_be_graded_is_found_before_the_run(task: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        rewards.number.check([{"id": "t", **task}])
    rewards.number.check([TASK])


def test_questions_become_tasks(tmp_path: Path) -> None:
    to = tmp_path / "tasks.jsonl"
    made = _pinnace("tasks", "scout", "--split", "train", "--limit", 20, "--out", to)
    assert made.exit_code == 0, made.output
    tasks = [json.loads(line) for line in to.read_text().splitlines()]
    assert len({task["id"] for task in tasks}) == 20
    assert all("<answer>" in task["system"] for task in tasks)
    rewards.gaia.check(tasks)


def test_questions_with_files_become_no_tasks(tmp_path: Path) -> None:
    data = write("gaia", tmp_path / "gaia", questions(6))
    refused = _pinnace("tasks", "gaia", "--data", data, "--out", tmp_path / "tasks.jsonl")
    assert refused.exit_code == 1
    assert "images or files" in refused.output
    assert not (tmp_path / "tasks.jsonl").exists()


def _pinnace(*arguments: object) -> Result:
    texts = ["eval", *(str(argument) for argument in arguments)]
    return CliRunner().invoke(build(texts), texts)
