"""Who plays in an RLRun, at what, and what an answer is worth."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, matches
from pinnace_operator.api.evalagent import Dialect
from pinnace_operator.api.evalbenchmark import Judge
from pinnace_operator.api.fields import S3Uri, whole
from pinnace_operator.api.shared import BuiltinData, ConfigMapSource, exactly_one

Function = Annotated[
    str,
    Field(min_length=3, max_length=200),
    matches(
        r"[A-Za-z_][\w.]*:[A-Za-z_]\w*",
        "must be module:function, importable in the sampler's image, such as 'my_agent.play:play'",
    ),
]
Argument = Annotated[str, Field(max_length=4096)]


class ContextPolicy(StrEnum):
    """What the loop does when its context grows."""

    NONE = "None"
    TRUNCATE = "Truncate"
    KEEP_LAST_K = "KeepLastK"


class LoopAgent(ApiModel):
    """Our own agent loop, the one that EvalSuite runs. A task has a `question`, and perhaps a `system` prompt."""

    policy: ContextPolicy = ContextPolicy.NONE
    """Context policy: None, Truncate or KeepLastK. Policies that ask a second model can't be trained with."""
    dialect: Dialect = Dialect.NATIVE
    """Native: the server's format of tool calls. Hermes and Action: they are read from the text."""
    system: Annotated[str, Field(max_length=65_536)] = ""
    """System prompt of tasks that have none."""
    turns: Annotated[int, whole(1, 100_000)] = 200
    """The most turns of an attempt."""


class RLAgent(ApiModel):
    """Who plays: exactly one of loop, function and command. Anything that speaks OpenAI's API can be trained."""

    loop: LoopAgent | None = None
    function: Function | None = None
    """`module:function`, called with the task, `base_url` and `api_key`; what it returns is the answer."""
    command: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=64), ListType()] | None = None
    """A program that finds `OPENAI_BASE_URL`, `OPENAI_API_KEY` and `PINNACE_TASK` (JSON); its last line is the answer.

    An exit code other than 0 says that the program failed, not the model: the reward is unknown."""
    attempt_seconds: Annotated[int, whole(1, 2_592_000)] = 600
    """The most seconds that an attempt may take."""

    rules = (exactly_one("agent", "loop", "function", "command"),)


class TaskSource(ApiModel):
    """What is played: exactly one of uri, configMap and builtin. Each line is a JSON object with an `id` of its own."""

    uri: S3Uri | None = None
    """A JSONL file in S3, or a folder of them (read in the order of their names)."""
    config_map: ConfigMapSource | None = None
    builtin: BuiltinData | None = None
    """Brings its own tools and needs no ToolSandbox."""

    rules = (exactly_one("tasks", "uri", "configMap", "builtin"),)


class NoSettings(ApiModel):
    """Nothing to set."""


class GradingRule(StrEnum):
    """How an answer is compared with the task's `answer`."""

    EXACT = "Exact"
    EXACT_IGNORING_CASE = "ExactIgnoringCase"
    NUMBER = "Number"
    GAIA = "GAIA"


class RLGrader(ApiModel):
    """A grader of EvalSuite: exactly one of rule and judge. Tasks need a `question` and an `answer`."""

    rule: GradingRule | None = None
    """Exact, ExactIgnoringCase, Number (within one part in a million) or GAIA (the leaderboard's, also Scout's)."""
    judge: Judge | None = None
    """A model decides. Where it fails the reward is unknown."""

    rules = (exactly_one("grader", "rule", "judge"),)


class RLReward(ApiModel):
    """What an attempt is worth: exactly one of builtin, grader, function and api.

    Right, wrong or unknown: what fails for reasons of the infrastructure or of the judge is never counted as wrong."""

    builtin: NoSettings | None = None
    """The built-in task's own."""
    grader: RLGrader | None = None
    function: Function | None = None
    """`module:function`, called with the task and the answer; a number, a bool, or None where nobody can tell."""
    api: NoSettings | None = None
    """The agent's own harness posts it to `/reward` below its base URL."""

    rules = (exactly_one("reward", "builtin", "grader", "function", "api"),)
