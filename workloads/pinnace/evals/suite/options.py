"""From an EvalSuite's spec to the options that the commands have, too."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import yaml
from pinnace_operator.api.evalagent import EvalAgent
from pinnace_operator.api.evalbenchmark import EvalBenchmark
from pinnace_operator.api.evalsuite import EvalSuiteSpec

from pinnace import job
from pinnace.agent import Limits, Sampling
from pinnace.model import address, fetch_tokenizer
from pinnace.storage import Storage

from ..assemble import AgentOptions, DataOptions, EndpointOptions
from ..command import RunOptions
from ..worker import Spending

Job = job.Job[EvalSuiteSpec]
CONFIG_MAPS = Path("/etc/pinnace")
_NOBODY = "http://127.0.0.1:9/v1"


def scratch() -> Path:
    """The pod's local disk."""
    return Path(os.environ.get("PINNACE_SCRATCH", "/scratch"))


def run_options(
    job: Job, storage: Storage, *, shard: int = 0, environ: Mapping[str, str] = os.environ
) -> list[RunOptions]:
    """One for each benchmark, in the order of the spec. The model's tokenizer is fetched.

    Raises:
        pinnace.outcome.ModelUnusable, pinnace.storage.StorageError
    """
    spec = job.spec
    agent = _agent(job, storage, shard, environ)
    judge = None
    if spec.judge:
        key = environ.get("PINNACE_JUDGE_API_KEY") or "none"
        judge = EndpointOptions(spec.judge.url, spec.judge.model, key)
    return [
        RunOptions(
            data=[_data(each)],
            agent=agent,
            out=records_at(job, storage),
            attempts=each.attempts,
            pass_at=each.pass_at,
            profile=each.profile.lower(),
            judge=judge,
        )
        for each in spec.benchmarks
    ]


def records_at(job: Job, storage: Storage) -> str:
    """Where the records are."""
    return str(job.spec.records or storage.settings.root / job.run_path / "records")


def spending(spec: EvalSuiteSpec) -> Spending:
    """The bounds and prices of the whole suite."""
    budget = spec.budget
    return Spending(
        tokens=budget.tokens,
        cost=float(budget.cost) if budget.cost else None,
        seconds=budget.wall_clock_seconds,
        prompt_price=float(budget.prompt_price or 0),
        completion_price=float(budget.completion_price or 0),
    )


def _data(each: EvalBenchmark) -> DataOptions:
    source = each.source
    own = CONFIG_MAPS / source.config_map.name / source.config_map.key if source and source.config_map else None
    return DataOptions(
        name=str(own) if own else each.name,
        split=each.split,
        source=source.uri if source else None,
        revision=each.revision,
        checksum=each.checksum,
        limit=each.limit,
    )


def _agent(job: Job, storage: Storage, shard: int, environ: Mapping[str, str]) -> AgentOptions:
    spec, agent = job.spec, job.spec.agent
    external = spec.engine.external
    if external:
        key = environ.get("PINNACE_MODEL_API_KEY") or "none"
        endpoint, tokenizer = EndpointOptions(external.url, external.model or "", key), external.tokenizer
    else:
        urls = (environ.get("PINNACE_MODEL_URLS") or _NOBODY).split(",")
        endpoint, tokenizer = EndpointOptions(urls[shard % len(urls)], ""), str(_tokenizer(job, storage))
    return AgentOptions(
        endpoint=endpoint,
        tokenizer=tokenizer,
        context=agent.context_tokens or 0,
        policy=_policy(agent),
        dialect=agent.dialect.lower(),
        sampling=Sampling(
            agent.turn_tokens,
            float(agent.temperature) if agent.temperature else None,
            float(agent.top_p) if agent.top_p else None,
        ),
        limits=Limits(turns=agent.turns, wall_seconds=agent.attempt_seconds),
        tools=_tools(job),
        offered=spec.tool_sandbox.tools if spec.tool_sandbox else (),
        model_digest=_digest(job, storage),
    )


def _tools(job: Job) -> str:
    where = job.resolved.get("toolSandbox")
    return str(where.uri) if where else "none"


def _tokenizer(job: Job, storage: Storage) -> Path:
    folder = scratch() / "tokenizer"
    assert job.spec.model is not None  # noqa: S101 - where there is no external endpoint, as the API guarantees
    fetch_tokenizer(job.spec.model, job.model, storage, folder)
    return folder


def _digest(job: Job, storage: Storage) -> str | None:
    """What tells this model from others of its name: a digest, else the most exact address there is."""
    source = job.spec.model
    if source is None:
        return None
    if source.hub:
        return f"{source.hub.repo}@{source.hub.revision}"
    where = address(source, job.model, storage)
    published = None if job.model.digest else storage.published(where)
    return job.model.digest or (published.digest if published else where)


def _policy(agent: EvalAgent) -> str:
    """The policy's name, or a file with the one of the spec: words that are CamelCase there are not so in files."""
    inline = agent.inline_policy
    if inline is None:
        return agent.policy or "truncate"
    policy = {**inline.to_manifest(), "name": "inline"}
    policy["overflow"] = policy["overflow"][0].lower() + policy["overflow"][1:]
    policy["reasoning"] = policy["reasoning"].lower()
    if "fold" in policy:
        policy["fold"]["mode"] = policy["fold"]["mode"].lower()
    path = scratch() / "policy.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(policy))
    return str(path)


def longest_context(tokenizer: Path) -> int | None:
    """Tokens that the model was made for, as its config says."""
    try:
        return int(json.loads((tokenizer / "config.json").read_text())["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
