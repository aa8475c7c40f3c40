"""`pinnace eval preflight`: finds in seconds what would stop the suite after the model was served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from openai import AsyncOpenAI
from pinnace_operator.api.conditions import Reason

from pinnace.outcome import InvalidSpec
from pinnace.storage import Storage

from ..assemble import Assembled, assemble, find_data
from ..command import RunOptions, prepare
from ..preflight import Served, check_context, look
from .failures import explained
from .options import Job, longest_context, run_options

log = logging.getLogger(__name__)


def preflight(job: Job) -> None:
    """Storage, data, policy, tokenizer, judge, tools, and an endpoint elsewhere. Raises the typed failure."""
    storage = Storage.from_env()
    storage.check()
    if storage.run(job.run_path).published() is not None:
        return
    asyncio.run(_check(job, run_options(job, storage)))


async def _check(job: Job, options: Sequence[RunOptions]) -> None:
    parts = []
    for each, benchmark in zip(options, job.spec.benchmarks, strict=True):
        with explained(f"spec.benchmarks[{benchmark.name}]"):
            parts.append(await _prepared(job, each))
            items = len(parts[-1].plan.loaded.items)
            log.info("%s: %d questions × %d attempts", benchmark.name, items, each.attempts)
    distinct(parts)
    await _judge(options[0])


def distinct(parts: Sequence[Assembled]) -> None:
    """Reports and records go by the benchmarks' own names. Raises `InvalidSpec`."""
    names = [part.plan.loaded.benchmark.name for part in parts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidSpec(f"spec.benchmarks: two of them are {twice[0]!r}: make a suite for each")


async def _prepared(job: Job, options: RunOptions) -> Assembled:
    """Everything, if the endpoint is there already; else all that does not need it."""
    if job.spec.engine.external:
        (part,) = await prepare(options)
        return part
    agent = options.agent
    server = job.spec.engine.server
    served = Served("", (server and server.context_tokens) or longest_context(Path(agent.tokenizer)))
    # A server that says nothing of its length is asked again once it is there.
    context = check_context(served, agent.context or None, agent.sampling.max_tokens) if served.context else 1 << 20
    part = await assemble(
        find_data(options.data[0]),
        replace(agent, context=context),
        attempts=options.attempts,
        profile=options.profile,
        judge=options.judge,
    )
    part.plan.check(pass_at=options.pass_at)
    return part


async def _judge(options: RunOptions) -> None:
    if options.judge is None:
        return
    client = AsyncOpenAI(base_url=options.judge.url, api_key=options.judge.api_key, timeout=60, max_retries=2)
    with explained("spec.judge", down=Reason.JUDGE_UNAVAILABLE):
        await look(client, options.judge.model)
