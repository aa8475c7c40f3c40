"""What an attempt was worth: by a function of the run's, or by whoever posted to `/reward`."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

from pinnace.rl.config import Task
from pinnace.rl.types import Reward, Termination, Trajectory

from .agents import Ending

log = logging.getLogger(__name__)
_LIMITS = {Termination.TURN_LIMIT, Termination.CONTEXT_LIMIT, Termination.TIME_LIMIT}


async def reward_of(function: Callable[..., Any] | None, task: Task, ending: Ending, trajectory: Trajectory) -> Reward:
    """Unknown, and not wrong, where the infrastructure or the reward function failed.

    The function gets the task and the answer and returns a number, a bool, a `Reward`, None (nobody can tell), or
    an object with a `verdict`, as EvalSuite's graders do.
    """
    if ending.termination is Termination.INFRASTRUCTURE:
        return Reward.unknown("infrastructure", ending.detail)
    if function is None:
        posted = trajectory.reward
        # Who ran into a limit before its harness could judge it has not solved the task.
        return (
            Reward.wrong()
            if posted.value is None and posted.cause != "judge" and ending.termination in _LIMITS
            else posted
        )
    try:
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            made = await function(task, ending.answer)
        else:
            made = await asyncio.to_thread(function, task, ending.answer)
        return _read(made)
    except Exception as error:
        log.warning("the reward function failed on task %s", task["id"], exc_info=True)
        return Reward.unknown("judge", f"{type(error).__name__}: {error}")


def _read(made: Any) -> Reward:
    if isinstance(made, Reward):
        return made
    if made is None:
        return Reward.unknown("judge", "the reward function can't tell")
    verdict = getattr(made, "verdict", None)
    if verdict is not None:
        if verdict == "unknown":
            return Reward.unknown("judge", str(getattr(made, "explanation", "")))
        return Reward.right() if verdict == "right" else Reward.wrong()
    value = float(made)
    return Reward.right(value) if value > 0 else Reward.wrong(value)
