"""What a log says in numbers: a pure summary for records and reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from .events import NOT_THE_AGENT, Ended, Event, Folded, Refined, Termination, Usage
from .guards import duplicate_calls
from .steps import read_story
from .tools import INFRASTRUCTURE, OK


class Summary(BaseModel):
    """One trajectory in numbers. Times in seconds.

    Attributes:
        usage: of the policy model; `second_usage`: of refinement and folding, which is no part of what RL trains on.
        prefix_share: share of prompt tokens that the server had cached, as it says.
        outcomes: replies by outcome.
        infrastructure: replies that failed outside the tools; `tool_errors`: by the tools themselves or bad arguments.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    termination: Termination
    forced: bool = False
    turns: int = 0
    calls: int = 0
    duplicates: int = 0
    malformed: int = 0
    folds: int = 0
    refined: int = 0
    fallbacks: int = 0
    unsupported: int = 0
    usage: Usage = Usage()
    second_usage: Usage = Usage()
    seconds: float = 0.0
    model_seconds: float = 0.0
    tool_seconds: float = 0.0
    outcomes: dict[str, int] = {}
    infrastructure: int = 0
    tool_errors: int = 0

    @property
    def not_the_agent(self) -> bool:
        """Whether it ended for reasons that say nothing about the agent."""
        return self.termination in NOT_THE_AGENT

    @property
    def prefix_share(self) -> float:
        return self.usage.cached / self.usage.prompt if self.usage.prompt else 0.0


def summarise(log: Sequence[Event]) -> Summary:
    """The summary of a log that has ended. Raises `ValueError` for one that has not."""
    last = log[-1] if log else None
    if not isinstance(last, Ended):
        raise ValueError("the trajectory has not ended")  # noqa: TRY004 - a state, not a type
    story = read_story(log)
    turns = [step.turn for step in story.steps]
    replies = list(story.results.values())
    outcomes = Counter(reply.outcome for reply in replies)
    seconds = [event for event in log if isinstance(event, Refined | Folded)]
    infrastructure = sum(count for outcome, count in outcomes.items() if outcome in INFRASTRUCTURE)
    return Summary(
        termination=last.termination,
        forced=last.forced,
        turns=len(turns),
        calls=sum(len(turn.calls) for turn in turns),
        duplicates=len(duplicate_calls(story)),
        malformed=sum(call.problem is not None for turn in turns for call in turn.calls),
        folds=len(story.folds),
        refined=len(story.refined),
        fallbacks=sum(event.fallback is not None for event in seconds),
        unsupported=sum(event.unsupported for event in seconds),
        usage=total([turn.usage for turn in turns]),
        second_usage=total([event.usage for event in seconds]),
        seconds=last.t,
        model_seconds=sum(turn.seconds for turn in turns),
        tool_seconds=sum(reply.seconds for reply in replies),
        outcomes=dict(sorted(outcomes.items())),
        infrastructure=infrastructure,
        tool_errors=sum(outcomes.values()) - outcomes[OK] - infrastructure,
    )


def total(usages: Sequence[Usage]) -> Usage:
    """The sum."""
    return Usage(
        prompt=sum(usage.prompt for usage in usages),
        completion=sum(usage.completion for usage in usages),
        cached=sum(usage.cached for usage in usages),
    )
