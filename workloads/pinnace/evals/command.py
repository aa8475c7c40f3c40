"""What the commands do, in order, from data to report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from openai import AsyncOpenAI
from pydantic import BaseModel, ConfigDict

from .assemble import AgentOptions, Assembled, DataOptions, EndpointOptions, assemble, find_data, judge_at
from .blobs import Blobs, open_blobs
from .errors import BadPlan, EndpointDown
from .grading import grade_all
from .intervals import compare
from .plan import Plan
from .preflight import check_context, check_tools, look
from .records import Records, Unit
from .report import Summary, summarise_run
from .report.page import Compared
from .report.write import read_summaries, read_trajectories, write_report
from .worker import Progress, Shard, Spending, work

_LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class RunOptions:
    """Everything that `pinnace eval run` was told."""

    data: Sequence[DataOptions]
    agent: AgentOptions
    out: str
    attempts: int = 1
    pass_at: int | None = None
    profile: str = "official"
    judge: EndpointOptions | None = None
    shard: Shard = field(default_factory=Shard)
    spending: Spending = field(default_factory=Spending)


@dataclass(frozen=True)
class Done:
    """Summaries, where the page is, and attempts that were given up."""

    summaries: list[Summary]
    report: str
    crashed: dict[Unit, str]


class _Remembered(BaseModel):
    """What a run leaves for `rescore`: which data and configuration, not keys."""

    model_config = ConfigDict(extra="forbid")

    data: dict[str, Any]
    attempts: int
    config: dict[str, Any]
    revision: str


async def evaluate(options: RunOptions, *, say: Callable[[str], None] = lambda _: None) -> Done:
    """Loads, checks, runs, grades and reports. What can't work raises before the model is asked anything."""
    parts = await prepare(options)
    blobs = open_blobs(options.out)
    crashed: dict[Unit, str] = {}
    for part, data in zip(parts, options.data, strict=True):
        plan = part.plan
        name = plan.loaded.benchmark.name
        say(f"{name}: {len(plan.loaded.items)} questions × {plan.attempts}, configuration {plan.place.config[:16]}")
        remembered = _Remembered(
            data=asdict(data), attempts=plan.attempts, config=dict(plan.config), revision=plan.loaded.revision
        )
        blobs.put(f"plans/{name}.json", remembered.model_dump_json(indent=1).encode())
        told, records = _Teller(name, say), Records(blobs, plan.place)
        progress = await work(
            plan,
            part.agent,
            part.tools,
            records,
            options.shard,
            spending=options.spending,
            on_progress=told,
        )
        await grade_all(plan, records)  # what a run was killed before it could, and what a judge had no answer to
        crashed |= progress.crashed
        if progress.stopped:
            say(f"{name}: stopped by the {progress.stopped}")
    summaries = await asyncio.to_thread(report_on, [part.plan for part in parts], blobs, options.spending)
    return Done(summaries, f"{blobs}/report/report.html", crashed)


async def prepare(options: RunOptions, *, patience: float = 0) -> list[Assembled]:
    """Loads and checks. Raises `EvalError`, `pinnace.agent.PolicyError`, `pinnace.chat.TokenizerError`.

    Args:
        patience: seconds that an endpoint which does not answer is waited for.
    """
    loaded = [find_data(each) for each in options.data]
    client = _client(options.agent.endpoint)
    agent = await _served(options.agent, client, patience)
    parts = [
        await assemble(each, agent, attempts=options.attempts, profile=options.profile, judge=options.judge)
        for each in loaded
    ]
    for part in parts:
        part.plan.check(pass_at=options.pass_at)
    if agent.dialect == "native" and agent.tools != "none":  # last: the model is asked for it
        await check_tools(client, agent.endpoint.model)
    return parts


def _client(endpoint: EndpointOptions) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=endpoint.url, api_key=endpoint.api_key, timeout=60, max_retries=2)


async def _served(agent: AgentOptions, client: AsyncOpenAI, patience: float) -> AgentOptions:
    """The agent's options with what the endpoint says of its model filled in."""
    end = time.monotonic() + patience
    while True:
        try:
            served = await look(client, agent.endpoint.model or None)
            break
        except EndpointDown:
            if time.monotonic() >= end:
                raise
        await asyncio.sleep(_LOOK_SECONDS)
    context = check_context(served, agent.context or None, agent.sampling.max_tokens)
    second = agent.second
    if second is not None and not second.model:
        second = replace(second, model=served.model)
    return replace(agent, endpoint=replace(agent.endpoint, model=served.model), context=context, second=second)


def report_on(plans: Sequence[Plan], blobs: Blobs, spending: Spending | None = None) -> list[Summary]:
    """Reads records and verdicts, and writes the report."""
    summaries, by_name, slugs = [], {}, {}
    for plan in plans:
        records = Records(blobs, plan.place)
        units = plan.units()
        found = records.read(units)
        grades = records.read_grades(list(found), plan.grader)
        summaries.append(summarise_run(plan, found, grades, spending=spending))
        name = plan.loaded.benchmark.name
        by_name[name] = records
        slugs.update({(name, item.id): item.slug for item in plan.loaded.items})
    title = "Evaluation of " + ", ".join(sorted({str(each.config.get("model")) for each in summaries}))
    write_report(blobs, summaries, title=title, trajectories=read_trajectories(by_name, slugs))
    return summaries


async def rescore(
    out: str, *, profile: str, judge: EndpointOptions | None, again: bool = False, source: str | None = None
) -> Done:
    """Grades recorded answers anew and writes the report. No agent and no model but the judge's runs."""
    blobs = open_blobs(out)
    plans = []
    for name in list(blobs.names("plans")):
        remembered = _Remembered.model_validate_json(blobs.get(name) or b"")
        options = DataOptions(**remembered.data)
        loaded = find_data(replace(options, source=source or options.source))
        if loaded.revision != remembered.revision:
            raise BadPlan(
                f"{loaded.benchmark.name}: the data is now {loaded.revision}, the run had {remembered.revision}: "
                "give that copy by --data"
            )
        plan = Plan(
            loaded=loaded,
            attempts=remembered.attempts,
            config=remembered.config,
            profile=loaded.benchmark.profile(profile),
            profile_name=profile,
            judge=judge_at(judge),
        )
        plan.check()
        await grade_all(plan, Records(blobs, plan.place), again=again)
        plans.append(plan)
    if not plans:
        raise BadPlan(f"{out}: there is no run here")
    return Done(await asyncio.to_thread(report_on, plans, blobs), f"{blobs}/report/report.html", {})


def compare_runs(first: str, second: str) -> list[Compared]:
    """Benchmarks that both runs have, on the questions that both have. Raises `BadPlan`, `FileNotFoundError`."""
    ones = {(each.benchmark, each.split, each.revision): each for each in read_summaries(open_blobs(first))}
    others = {(each.benchmark, each.split, each.revision): each for each in read_summaries(open_blobs(second))}
    shared = sorted(ones.keys() & others.keys())
    if not shared:
        raise BadPlan("the runs have no benchmark with the same split and revision in common")
    return [pair for key in shared if (pair := compare_summaries(ones[key], others[key])) is not None]


def compare_summaries(first: Summary, second: Summary) -> Compared | None:
    """Two summaries of one benchmark. Raises `BadPlan` if they were graded differently."""
    graded = (first.grader.digest, first.grader.judge), (second.grader.digest, second.grader.judge)
    if graded[0] != graded[1]:
        raise BadPlan(f"{first.benchmark}: the runs were graded by different graders {graded}: rescore one of them")
    shares = {item.item: item.share for item in second.items}
    pairs = [
        (one, other)
        for item in first.items
        if (one := item.share) is not None and (other := shares.get(item.item)) is not None
    ]
    result = compare([one for one, _ in pairs], [other for _, other in pairs])
    names = [f"{each.config.get('model')} {each.config_hash[:8]}" for each in (first, second)]
    return Compared(first.benchmark, names[0], names[1], result) if result else None


class _Teller:
    """Says how far it is, once for every twentieth part."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self._name, self._say, self._told = name, say, -1

    def __call__(self, progress: Progress) -> None:
        share = 20 * (progress.done + progress.kept) // max(1, progress.total)
        if share != self._told:
            self._told = share
            self._say(f"{self._name}: {progress.done + progress.kept} of {progress.total} attempts")
