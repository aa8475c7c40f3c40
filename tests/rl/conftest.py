"""Trajectories made by hand, and the strategies that make them by the hundred."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pinnace.rl.types import Fault, Reward, Segment, Termination, Trajectory, Turn

# The clock of a busy machine says nothing about the code.
settings.register_profile("rl", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rl")


def trajectory(
    name: str = "t0",
    *,
    reward: Reward | float | None = None,
    turns: int = 2,
    tokens: int = 3,
    termination: Termination = Termination.ANSWERED,
    faults: dict[int, Fault] | None = None,
    step_rewards: Sequence[float | None] = (),
    version: int = 0,
    group: str = "g",
    segments: int = 1,
) -> Trajectory:
    """A trajectory of `turns` turns of `tokens` tokens, two tokens of context before each."""
    if not isinstance(reward, Reward):
        value = 0.0 if reward is None else reward
        reward = Reward.right(value) if value > 0.5 else Reward.wrong(value)
    made: list[Turn] = []
    parts: list[Segment] = []
    for part in range(segments):
        ids: list[int] = []
        here: list[Turn] = []
        for index in range(part, turns, segments):
            start = len(ids) + 2
            ids += [1, 2, *range(10, 10 + tokens)]
            here.append(
                Turn(
                    start=start,
                    end=start + tokens,
                    behaviour_logprobs=tuple(-0.1 * (index + 1) for _ in range(tokens)),
                    policy_versions=(version,) * tokens,
                    index=index,
                    fault=(faults or {}).get(index),
                    reward=step_rewards[index] if index < len(step_rewards) else None,
                )
            )
        made += here
        parts.append(Segment(ids=tuple(ids), turns=tuple(here)))
    return Trajectory(
        id=name, task_id="task", group_id=group, segments=tuple(parts), reward=reward, termination=termination
    )


known_rewards = st.one_of(
    st.builds(Reward.right, st.sampled_from([0.75, 1.0])), st.builds(Reward.wrong, st.sampled_from([-0.5, 0.0, 0.25]))
)
unknown_rewards = st.builds(Reward.unknown, st.sampled_from(["infrastructure", "judge"]), st.text(max_size=5))


@st.composite
def trajectories(draw: st.DrawFn, name: str = "t0", rewards: st.SearchStrategy[Reward] | None = None) -> Trajectory:
    turns = draw(st.integers(0, 4))
    return trajectory(
        name,
        reward=draw(rewards if rewards is not None else known_rewards | unknown_rewards),
        turns=turns,
        tokens=draw(st.integers(1, 4)),
        termination=draw(st.sampled_from(list(Termination))),
        faults=draw(st.dictionaries(st.integers(0, 3), st.sampled_from(list(Fault)), max_size=1)),
        step_rewards=draw(st.lists(st.none() | st.sampled_from([0.0, 0.5, 1.0]), max_size=4)),
        version=draw(st.integers(0, 9)),
        segments=draw(st.integers(1, 2)),
    )


@st.composite
def groups(draw: st.DrawFn, *, least: int = 1) -> list[Trajectory]:
    size = draw(st.integers(least, 6))
    return [draw(trajectories(f"t{member}")) for member in range(size)]
