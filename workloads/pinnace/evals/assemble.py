"""From the options of a command line or a resource to a `Plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pinnace.agent import (
    DIALECTS,
    Agent,
    AnswerRule,
    Budget,
    Endpoint,
    Folder,
    Limits,
    Model,
    ModelCounter,
    Refiner,
    Sampling,
    find_policy,
)

from .benchmark import Benchmark, Loaded, load
from .benchmarks import find
from .errors import BadPlan
from .graders import Judge
from .own import read_own
from .plan import Plan, ToolsFor, configuration
from .preflight import check_room
from .tools import GatewayTools, check_gateway, tools_for

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
                    "config.json", "generation_config.json")  # fmt: skip
_FOLDED_SHARE = 0.6


@dataclass(frozen=True)
class EndpointOptions:
    """An OpenAI-compatible endpoint."""

    url: str
    model: str
    api_key: str = "none"


@dataclass(frozen=True)
class AgentOptions:
    """What shapes the agent.

    Attributes:
        context: in tokens.
        tools: as `tools_for` takes it.
        offered: names of the gateway's tools that the agent gets; none: what the benchmark needs, else all.
    """

    endpoint: EndpointOptions
    tokenizer: str
    context: int
    policy: str = "truncate"
    dialect: str = "native"
    rule: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    second: EndpointOptions | None = None
    tools: str = "none"
    offered: Sequence[str] = ()
    model_digest: str | None = None


@dataclass(frozen=True)
class DataOptions:
    """Which questions."""

    name: str
    split: str | None = None
    source: str | None = None
    revision: str | None = None
    checksum: str | None = None
    limit: int | None = None
    ids: Sequence[str] | None = None


def find_data(options: DataOptions) -> Loaded:
    """A shipped benchmark by name, or one's own by file, loaded. Raises `EvalError`."""
    path = Path(options.name)
    benchmark: Benchmark
    source = options.source
    if path.suffix in {".yaml", ".yml", ".py"}:
        benchmark, own = read_own(path)
        source = source or own
    else:
        benchmark = find(options.name)
    loaded = load(benchmark, split=options.split, source=source, revision=options.revision, checksum=options.checksum)
    return loaded.limited(options.limit, options.ids)


@dataclass(frozen=True)
class Assembled:
    """What `work` needs."""

    plan: Plan
    agent: Agent
    tools: ToolsFor


async def assemble(
    loaded: Loaded, options: AgentOptions, *, attempts: int, profile: str, judge: EndpointOptions | None
) -> Assembled:
    """Plan, agent and tools, checked. A gateway is asked for its tools.

    Raises:
        EvalError, pinnace.agent.PolicyError, pinnace.chat.TokenizerError, ValueError
    """
    agent, needs = make_agent(loaded, options), loaded.benchmark.needs
    if needs and options.tools == "none":
        raise BadPlan(
            f"{loaded.benchmark.name} needs the tools {', '.join(needs)}: give a ToolSandbox by --tools http://…"
        )
    tools, said = tools_for(options.tools, options.offered or needs), options.tools
    if isinstance(tools, GatewayTools):
        said = await check_gateway(tools, loaded.items, options.tools, needs=needs)
    elif options.offered:
        raise BadPlan("--offer chooses among the tools of a ToolSandbox: give it by --tools http://…")
    config = configuration(
        agent,
        loaded,
        model_digest=options.model_digest,
        sampling=options.sampling.request(),
        tools=said,
        second=options.second.model if options.second else None,
    )
    plan = Plan(
        loaded=loaded,
        attempts=attempts,
        config=config,
        profile=loaded.benchmark.profile(profile),
        profile_name=profile,
        judge=judge_at(judge),
    )
    plan.check()
    if isinstance(tools, GatewayTools):
        check_room(plan, agent, await tools.offer())
    return Assembled(plan, agent, tools)


def judge_at(options: EndpointOptions | None) -> Judge | None:
    """The judge, if there is one."""
    return Judge.at(options.url, options.model, api_key=options.api_key) if options else None


def make_agent(loaded: Loaded, options: AgentOptions) -> Agent:
    """The agent. Raises as `assemble`."""
    if options.dialect not in DIALECTS:
        raise BadPlan(f"unknown dialect {options.dialect!r}: use {', '.join(DIALECTS)}")
    policy = find_policy(options.policy)
    counter = ModelCounter.from_directory(tokenizer_folder(options.tokenizer))
    budget = Budget(options.context, options.sampling.max_tokens)
    second = options.second
    if (policy.refine or (policy.fold and policy.fold.mode == "summary")) and second is None:
        second = options.endpoint  # the model itself
    writes = max(policy.refine.output_tokens if policy.refine else 0, policy.fold.output_tokens if policy.fold else 0)
    reader: Model | None = None
    if second is not None:
        reader = Endpoint.at(second.url, second.model, Sampling(writes or 1024, 0), api_key=second.api_key)
    model = Endpoint.at(
        options.endpoint.url, options.endpoint.model, options.sampling, api_key=options.endpoint.api_key
    )
    return Agent(
        model=model,
        counter=counter,
        budget=budget,
        policy=policy,
        limits=options.limits,
        dialect=DIALECTS[options.dialect],
        rule=AnswerRule(options.rule or loaded.benchmark.rule),
        refiner=Refiner(reader, policy.refine, counter) if policy.refine and reader else None,
        folder=Folder(reader or model, policy.fold, counter, input_tokens=int(options.context * _FOLDED_SHARE))
        if policy.fold
        else None,
    )


def tokenizer_folder(where: str) -> Path:
    """A local model folder, one in S3 (`s3://…`), or one of the hub (`owner/name`). Raises `BadPlan`."""
    path = Path(where)
    if path.is_dir():
        return path
    if where.startswith("s3://"):
        return _from_s3(where)
    if where.count("/") != 1 or where.startswith((".", "/")):
        raise BadPlan(f"--tokenizer {where!r}: neither a folder, nor s3://…, nor owner/name on the hub")
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(where, allow_patterns=list(_TOKENIZER_FILES)))
    except (hub.HfHubHTTPError, hub.LocalEntryNotFoundError, OSError) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadPlan(f"--tokenizer {where}: {told}: give the served model's folder") from None


def _from_s3(where: str) -> Path:
    import hashlib

    from pinnace.storage import S3Uri, Storage

    from .source import cache_folder

    storage, uri = Storage.from_env(), S3Uri.parse(where)
    folder = cache_folder() / "tokenizers" / hashlib.sha256(where.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    names = {uri.relative(each.uri): each.uri for each in storage.list(uri)}
    for name in names.keys() & set(_TOKENIZER_FILES):
        with storage.open(names[name]) as stream:
            (folder / name).write_bytes(stream.read())
    return folder
