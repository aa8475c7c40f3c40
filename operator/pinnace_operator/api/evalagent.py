"""The agent of an EvalSuite: our loop, with its context policy, limits and sampling."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, Rule
from pinnace_operator.api.fields import DecimalString, Label, decimal_between, whole

Tokens = Annotated[int, whole(16, 16_777_216)]


class Dialect(StrEnum):
    """How the model calls tools."""

    NATIVE = "Native"
    HERMES = "Hermes"
    ACTION = "Action"


class FoldMode(StrEnum):
    """What becomes of the steps before the last ones."""

    SUMMARY = "Summary"
    DISCARD = "Discard"


class Overflow(StrEnum):
    """What happens when nothing else makes the view fit."""

    DROP_OLDEST = "DropOldest"
    ANSWER = "Answer"


class Reasoning(StrEnum):
    """Whose earlier thoughts the model is shown again."""

    ALL = "All"
    NONE = "None"


class KeepLast(ApiModel):
    """Older results become stubs that the tool `recall` brings back."""

    results: Annotated[int, whole(1, 10_000)] = 5
    """Results that stay in view."""
    every: Annotated[int, whole(1, 1_000)] = 1
    """The border moves by so many results, so that the server's prefix cache stays valid that long."""


class Refine(ApiModel):
    """Long results are read with the call's goal in mind; the evidence that is quoted stays checkable."""

    over_tokens: Annotated[int, whole(1, 16_777_216)] = 1_500
    """Shorter results are shown as they are."""
    input_tokens: Annotated[int, whole(1, 16_777_216)] = 58_000
    """Longer ones are cut to this before they are read."""
    output_tokens: Annotated[int, whole(64, 1_048_576)] = 1_500
    """The most that may be written about one."""
    tools: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=160)], ...], Field(max_length=64), ListType("set")
    ] = ()
    """Names of the tools that it applies to; none: all."""


class Fold(ApiModel):
    """At a share of the budget, what came before the last steps becomes notes or goes."""

    at_percent: Annotated[int, whole(10, 100)] = 90
    """Share of the context, in percent."""
    mode: FoldMode = FoldMode.SUMMARY
    """Summary: facts with sources, dead ends, next step. Discard: nothing stays of it."""
    keep_steps: Annotated[int, whole(1, 1_000)] = 1
    """Last steps that stay as they are."""
    output_tokens: Annotated[int, whole(64, 1_048_576)] = 2_000
    """The most that a summary may have."""


class InlinePolicy(ApiModel):
    """A context policy of one's own. What it leaves out does not happen."""

    result_tokens: Tokens | None = None
    """Cap of one result in view; head and tail stay."""
    keep_last: KeepLast | None = None
    refine: Refine | None = None
    fold: Fold | None = None
    overflow: Overflow = Overflow.DROP_OLDEST
    """When nothing else helps: DropOldest steps, or Answer from what is there."""
    reasoning: Reasoning = Reasoning.ALL
    """Earlier thoughts that are sent back: All or None."""

    rules = (
        Rule(
            "!has(self.fold) || self.overflow != 'Answer' || self.fold.atPercent < 100",
            "inlinePolicy.fold.atPercent: 100 with overflow Answer never folds: lower atPercent",
            lambda policy: not (policy.fold and policy.overflow is Overflow.ANSWER and policy.fold.at_percent == 100),
            field=".fold",
        ),
    )


class EvalAgent(ApiModel):
    """How the agent works. Everything here is part of what records are filed under."""

    policy: Label | None = None
    """A shipped context policy: none, truncate (the default), keep-last-k, refine, fold, discard-all, refine-fold."""
    inline_policy: InlinePolicy | None = None
    dialect: Dialect = Dialect.NATIVE
    """Native: the server parses tool calls. Hermes and Action: they are read from the text."""
    turns: Annotated[int, whole(1, 100_000)] = 200
    """The most turns of an attempt."""
    attempt_seconds: Annotated[int, whole(1, 2_592_000)] = 9_000
    """The most seconds that an attempt may be at work."""
    context_tokens: Tokens | None = None
    """The context that is planned with; absent: as long as the server's."""
    turn_tokens: Annotated[int, whole(1, 1_048_576)] = 4_096
    """The most that the model may write in one turn."""
    temperature: (
        Annotated[DecimalString, decimal_between("0", "10", 'must be a decimal in quotes from 0 to 10, such as "0.6"')]
        | None
    ) = None
    """Sampling temperature, a decimal in quotes; absent: the server's."""
    top_p: (
        Annotated[
            DecimalString,
            decimal_between(
                "0", "1", 'must be a decimal in quotes above 0 and at most 1, such as "0.95"', above_low=True
            ),
        ]
        | None
    ) = None
    """Nucleus sampling, a decimal in quotes; absent: the server's."""

    rules = (
        Rule(
            "!has(self.policy) || !has(self.inlinePolicy)",
            "agent.inlinePolicy: there is already a policy by name: remove policy or inlinePolicy",
            lambda agent: agent.policy is None or agent.inline_policy is None,
            field=".inlinePolicy",
        ),
        Rule(
            "!has(self.contextTokens) || self.contextTokens > 2 * self.turnTokens",
            "agent.contextTokens: it leaves too little beside turnTokens: lower turnTokens below half of it",
            lambda agent: agent.context_tokens is None or agent.context_tokens > 2 * agent.turn_tokens,
            field=".contextTokens",
        ),
    )
