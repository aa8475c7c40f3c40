"""EvalSuite: serve a model, give it tools, run benchmarks, grade and report."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, Rule
from pinnace_operator.api.evalagent import Dialect, EvalAgent
from pinnace_operator.api.evalbenchmark import EvalBenchmark, Judge
from pinnace_operator.api.evalengine import Engine
from pinnace_operator.api.evalresult import MOST_BENCHMARKS, MOST_COMPARED
from pinnace_operator.api.evalstatus import EvalSuiteStatus
from pinnace_operator.api.fields import (
    ConfigMapKey,
    DecimalString,
    Image,
    Label,
    ObjectName,
    S3Uri,
    decimal_between,
    whole,
)
from pinnace_operator.api.job import JobSpec
from pinnace_operator.api.metadata import ObjectMeta, name_rules
from pinnace_operator.api.pod import PodTemplate, Resources
from pinnace_operator.api.shared import ModelSource
from pinnace_operator.api.toolpolicy import Alias

_Price = Annotated[
    DecimalString, decimal_between("0", "1000000", 'must be a decimal in quotes, not below 0, such as "0.15"')
]


def _each_server(condition: str) -> str:
    """CEL: it holds for the server, whichever engine it is; also where there is none."""
    return " && ".join(
        f"(!has(self.engine.{name}) || ({condition.replace('server', f'self.engine.{name}')}))"
        for name in ("vllm", "sglang")
    )


class ToolSandboxRef(ApiModel):
    """A ToolSandbox in the same namespace, and which of its tools the agent is offered. It must become Ready first."""

    name: Label
    """Its name."""
    tenant: ConfigMapKey = "default"
    """Whose token is used: a key of the Secret with the sandbox's tokens."""
    tools: Annotated[tuple[Alias, ...], Field(max_length=256), ListType("set")] = ()
    """Names as the gateway lists them. Absent: what a benchmark says that it needs, else all that there are."""


class EvalBudget(ApiModel):
    """Bounds of the whole suite. At one of them no attempt is begun any more; the rest counts as not solved."""

    tokens: Annotated[int, whole(1, 2**53)] | None = None
    """Tokens that the model reads and writes."""
    cost: _Price | None = None
    """Money, in the currency of the prices, a decimal in quotes."""
    wall_clock_seconds: Annotated[int, whole(1, 31_536_000)] | None = None
    """Seconds since the first attempt was begun."""
    prompt_price: _Price | None = None
    """Price of a million prompt tokens, a decimal in quotes."""
    completion_price: _Price | None = None
    """Price of a million tokens that the model writes, a decimal in quotes."""

    rules = (
        Rule(
            "!has(self.cost) || has(self.promptPrice) || has(self.completionPrice)",
            "budget.cost: it can't be counted without prices: set promptPrice and completionPrice",
            lambda budget: (
                budget.cost is None or budget.prompt_price is not None or budget.completion_price is not None
            ),
            field=".cost",
        ),
    )


class EvalWorker(ApiModel):
    """The pods that run the agent, one a shard."""

    concurrency: Annotated[int, whole(1, 1024)] = 8
    """Attempts that one shard has under way."""
    resources: Resources = Field(default_factory=Resources)
    image: Image | None = None
    """Another image than the operator's tools image."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)


class Evaluation(ApiModel):
    """On what to evaluate, and how: all but the model, and where the results go."""

    engine: Engine
    agent: EvalAgent = Field(default_factory=EvalAgent)
    tool_sandbox: ToolSandboxRef | None = None
    """Tools for the agent; absent: it has none."""
    benchmarks: Annotated[
        tuple[EvalBenchmark, ...], Field(min_length=1, max_length=MOST_BENCHMARKS), ListType("map", ("name",))
    ]
    """They run in this order."""
    judge: Judge | None = None
    """Needed where a benchmark's grader profile asks a model."""
    hub_secret_name: ObjectName | None = None
    """Secret in the suite's namespace whose key `token` opens gated data and models on the hub."""
    shards: Annotated[int, whole(1, 256)] = 1
    """Workers. They share all attempts: what one leaves, because it is slow or fails, the others do."""
    worker: EvalWorker = Field(default_factory=EvalWorker)
    budget: EvalBudget = Field(default_factory=EvalBudget)
    compare_to: Annotated[tuple[Label, ...], Field(max_length=MOST_COMPARED), ListType("set")] = ()
    """EvalSuites of this namespace to compare with, question by question. This one waits until they are complete."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.toolSandbox) || self.agent.dialect != 'Native' || {_each_server('has(server.toolParser)')}",
            "engine.toolParser: native tool calls have to be parsed by the server: set it (hermes for vLLM, qwen25 for "
            "SGLang), or set agent.dialect to Hermes",
            lambda spec: (
                spec.tool_sandbox is None
                or spec.agent.dialect is not Dialect.NATIVE
                or spec.engine.server is None
                or spec.engine.server.tool_parser is not None
            ),
            field=".engine",
        ),
        Rule(
            "!has(self.agent.contextTokens) || "
            + _each_server("!has(server.contextTokens) || self.agent.contextTokens <= server.contextTokens"),
            "agent.contextTokens: it is longer than the server's: lower it, or raise engine's contextTokens",
            lambda spec: (
                spec.agent.context_tokens is None
                or spec.engine.server is None
                or spec.engine.server.context_tokens is None
                or spec.agent.context_tokens <= spec.engine.server.context_tokens
            ),
            field=".agent",
        ),
    )


class EvalSuiteSpec(Evaluation, JobSpec):
    """What to evaluate, on what, and how. `engine` and `benchmarks` are needed, and `model` where it is served here."""

    model: ModelSource | None = None
    """The model to serve; absent with engine.external."""
    records: S3Uri | None = None
    """A folder in S3 for the records, which suites may share: what is there under the same configuration is not done
    again. Absent: the suite's own."""

    rules = (
        Rule(
            "has(self.model) != has(self.engine.external)",
            "model: engines vllm and sglang serve it, an external endpoint has its own: "
            "set model, or use engine.external without it",
            lambda spec: (spec.model is None) != (spec.engine.external is None),
            field=".model",
        ),
        *Evaluation.rules,
    )


class EvalSuite(ApiModel):
    """Evaluates a model as an agent on benchmarks: scores with intervals, records and a report in S3.

    A small example: `spec: {model: {uri: s3://pinnace/models/tiny}, engine: {vllm: {device: cpu}},
    benchmarks: [{name: frames, limit: 20}]}`.
    """

    api_version: Literal["pinnace.dev/v1alpha1"] = "pinnace.dev/v1alpha1"
    kind: Literal["EvalSuite"] = "EvalSuite"
    metadata: ObjectMeta
    spec: EvalSuiteSpec
    status: EvalSuiteStatus = Field(default_factory=EvalSuiteStatus)

    rules = (
        *name_rules(longest_pod_suffix="-preflight-0-0"),
        Rule(
            "!has(self.spec.compareTo) || !(self.metadata.name in self.spec.compareTo)",
            "spec.compareTo: a suite can't be compared with itself: name another one",
            lambda suite: suite.metadata.name not in suite.spec.compare_to,
            field=".spec.compareTo",
        ),
    )
