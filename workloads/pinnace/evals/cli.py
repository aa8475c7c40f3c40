"""`pinnace eval NAME … `: from a served model to a report."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from .suite import cli as suite

_out = Console()
_err = Console(stderr=True)


class _RunByDefault(TyperGroup):
    """`pinnace eval gaia` is `pinnace eval run gaia`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(no_args_is_help=True, cls=_RunByDefault, help="Evaluate an agent on benchmarks.")
Names = Annotated[list[str], typer.Argument(metavar="NAME|FILE…", help="benchmarks; or .yaml or .py files of yours")]
Out = Annotated[str, typer.Option("--out", "-o", help="records and reports: a folder or s3://bucket/path")]
Split = Annotated[str | None, typer.Option(help="which questions; default the benchmark's first split")]
Data = Annotated[str | None, typer.Option(help="a copy of the data: file, folder or s3://…; default the hub")]
Revision = Annotated[str | None, typer.Option(help="the dataset's commit on the hub")]
Checksum = Annotated[str | None, typer.Option(help="sha256:… that the data must have")]
Limit = Annotated[int | None, typer.Option(min=1, help="only the first so many questions")]
Ids = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="only these ids, one a line")]
Attempts = Annotated[int, typer.Option("--attempts", "-k", min=1, help="attempts at each question")]
Profile = Annotated[str, typer.Option(help="grader profile: official or community")]
JudgeUrl = Annotated[str | None, typer.Option(help="the judge's endpoint (…/v1); key in PINNACE_JUDGE_API_KEY")]
JudgeModel = Annotated[str | None, typer.Option(help="the judge's model")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="log what happens")]


@app.command()
def run(  # noqa: PLR0913, PLR0917 - options of a command line
    names: Names,
    endpoint: Annotated[
        str,
        typer.Option("--endpoint", "--base-url", help="the model's endpoint (…/v1); key in PINNACE_MODEL_API_KEY"),
    ],
    tokenizer: Annotated[str, typer.Option(help="the served model's folder, s3://… or owner/name: tokens are counted")],
    model: Annotated[str | None, typer.Option(help="the model's name there; default the only one")] = None,
    out: Out = "evals",
    attempts: Attempts = 1,
    pass_at: Annotated[int | None, typer.Option(help="fail now if pass@K will be undefined")] = None,
    split: Split = None,
    data: Data = None,
    revision: Revision = None,
    checksum: Checksum = None,
    limit: Limit = None,
    ids: Ids = None,
    profile: Profile = "official",
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    policy: Annotated[str, typer.Option(help="context policy: a shipped one, or a .yaml file")] = "truncate",
    second_url: Annotated[str | None, typer.Option(help="endpoint that refines and folds; default the model's")] = None,
    second_model: Annotated[str | None, typer.Option(help="model that refines and folds")] = None,
    dialect: Annotated[str, typer.Option(help="native, hermes or action: how tools are called")] = "native",
    tools: Annotated[
        str, typer.Option(help="none, a ToolSandbox's http://… (key in PINNACE_TOOLS_TOKEN), or module:function")
    ] = "none",
    offer: Annotated[
        list[str] | None,
        typer.Option(help="offer only these of the ToolSandbox's tools; default what the benchmark needs, else all"),
    ] = None,
    context: Annotated[int | None, typer.Option(help="tokens; default the server's")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="the most that one turn may write")] = 4096,
    temperature: Annotated[float | None, typer.Option(help="default the server's")] = None,
    top_p: Annotated[float | None, typer.Option(help="default the server's")] = None,
    turns: Annotated[int, typer.Option(min=1, help="the most turns of an attempt")] = 200,
    wall_seconds: Annotated[float, typer.Option(min=1, help="the most seconds of an attempt")] = 9000,
    concurrency: Annotated[int, typer.Option(min=1, help="attempts at once")] = 8,
    shard: Annotated[str, typer.Option(help="this worker among others: 0/1, 3/8")] = "0/1",
    budget_tokens: Annotated[int | None, typer.Option(help="begin nothing more after so many tokens")] = None,
    budget_cost: Annotated[float | None, typer.Option(help="… after so much money")] = None,
    prompt_price: Annotated[float, typer.Option(help="of a million prompt tokens")] = 0,
    completion_price: Annotated[float, typer.Option(help="of a million completion tokens")] = 0,
    verbose: Verbose = False,
) -> None:
    """Run benchmarks and write the report. Run it again to go on after a crash, or with more attempts or questions."""
    from pinnace.agent import Limits, Sampling

    from .assemble import AgentOptions, EndpointOptions
    from .command import RunOptions, evaluate
    from .worker import Shard, Spending

    with _explained(verbose=verbose):
        index, count = _shard(shard)
        key = os.environ.get("PINNACE_MODEL_API_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
        second = None
        if second_url or second_model:
            second = EndpointOptions(second_url or endpoint, second_model or model or "", key)
        options = RunOptions(
            data=_data(names, split, data, revision, checksum, limit, ids),
            agent=AgentOptions(
                endpoint=EndpointOptions(endpoint, model or "", key),
                tokenizer=tokenizer,
                context=context or 0,
                policy=policy,
                dialect=dialect,
                sampling=Sampling(max_tokens, temperature, top_p),
                limits=Limits(turns=turns, wall_seconds=wall_seconds),
                second=second,
                tools=tools,
                offered=offer or (),
            ),
            out=out,
            attempts=attempts,
            pass_at=pass_at,
            profile=profile,
            judge=_judge(judge_url, judge_model),
            shard=Shard(index, count, concurrency),
            spending=Spending(budget_tokens, budget_cost, None, prompt_price, completion_price),
        )
        done = asyncio.run(evaluate(options, say=lambda text: _err.print(text, highlight=False, soft_wrap=True)))
        _show(done.summaries)
        _out.print(f"report: {done.report}", highlight=False, soft_wrap=True)
        if done.crashed:
            for unit, why in done.crashed.items():
                _err.print(f"{unit.item}, attempt {unit.attempt}: {why}", markup=False, style="red", soft_wrap=True)
            raise typer.Exit(1)


@app.command()
def rescore(
    out: Annotated[str, typer.Argument(help="where the run wrote: a folder or s3://…")],
    profile: Profile = "official",
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    again: Annotated[bool, typer.Option(help="also what has a verdict by this grader already")] = False,
    data: Data = None,
    verbose: Verbose = False,
) -> None:
    """Grade a run's recorded answers by another grader or judge, or where the judge failed. Runs no agent."""
    from .command import rescore as grade

    with _explained(verbose=verbose):
        done = asyncio.run(grade(out, profile=profile, judge=_judge(judge_url, judge_model), again=again, source=data))
        _show(done.summaries)
        _out.print(f"report: {done.report}", highlight=False, soft_wrap=True)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="a run: a folder or s3://…")],
    second: Annotated[str, typer.Argument(help="another run")],
) -> None:
    """Compare two runs question by question: difference with interval, McNemar and permutation tests."""
    from .command import compare_runs

    with _explained():
        table = Table("benchmark", "difference", "95 %", "fixed", "broken", "p McNemar", "p permutation", box=None)
        for each in compare_runs(first, second):
            gap = each.result.difference
            reach = f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
            numbers = (f"{100 * gap.value:+.1f}", reach, str(each.result.fixed), str(each.result.broken))
            table.add_row(each.benchmark, *numbers, f"{each.result.mcnemar:.3g}", f"{each.result.permutation:.3g}")
        _out.print(table)


@app.command()
def tasks(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="a benchmark; or a .yaml or .py file of yours")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the file to write")] = Path("tasks.jsonl"),
    split: Split = None,
    data: Data = None,
    revision: Revision = None,
    checksum: Checksum = None,
    limit: Limit = None,
    ids: Ids = None,
) -> None:
    """Write questions as an RLRun plays them: JSON lines with id, question, system and answer."""
    from .assemble import find_data
    from .rewards import write_tasks

    with _explained():
        (chosen,) = _data([name], split, data, revision, checksum, limit, ids)
        loaded = find_data(chosen)
        write_tasks(loaded, out)
        _err.print(f"{len(loaded.items)} tasks of {loaded.benchmark.name}, {loaded.split}: {out}", highlight=False)


@app.command("list")
def list_() -> None:
    """List the benchmarks with their splits, graders and what access they need."""
    from .benchmarks import shipped

    table = Table("name", "splits", "official judge", "licence and access", box=None)
    for benchmark in shipped().values():
        splits = ", ".join(f"{name} ({part.size or '?'})" for name, part in benchmark.splits.items())
        judge = benchmark.profiles["official"].judge or "rule"
        table.add_row(benchmark.name, splits, judge, f"{benchmark.licence}. {benchmark.gate}".strip())
    _out.print(table)


@app.command()
def calibrate(
    name: Annotated[str, typer.Argument(help="benchmark whose grader is measured")],
    labelled: Annotated[Path, typer.Argument(help="rows with question, reference, response, label (right, wrong)")],
    profile: Profile = "official",
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
) -> None:
    """Measure how far a judge agrees with people."""
    from .benchmarks import find
    from .calibrate import calibrate as measure
    from .calibrate import read_labelled
    from .graders import Judge

    with _explained():
        chosen = _judge(judge_url, judge_model)
        judge = Judge.at(chosen.url, chosen.model, api_key=chosen.api_key) if chosen else None
        found = asyncio.run(measure(find(name).profile(profile).grader, judge, read_labelled(labelled)))
        share = "–" if found.share is None else f"{100 * found.share:.1f} %"
        kappa = "–" if found.kappa is None else f"{found.kappa:.3f}"
        _out.print(
            f"agreement {share} (kappa {kappa}) on {found.total}: {found.false_right} wrongly right, "
            f"{found.false_wrong} wrongly wrong, {found.unknown} without a verdict",
            highlight=False,
            soft_wrap=True,
        )


for _command in (suite.preflight, suite.fetch, suite.shard):
    app.command(hidden=True)(_command)


@contextmanager
def _explained(*, verbose: bool = False) -> Iterator[None]:
    """Errors that we understand become one line and exit code 1."""
    from pinnace.agent import PolicyError
    from pinnace.chat import TokenizerError
    from pinnace.storage import StorageError

    from .errors import EvalError

    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        yield
    except (EvalError, PolicyError, TokenizerError, StorageError, OSError) as error:
        _err.print(f"{type(error).__name__}: {error}", markup=False, highlight=False, style="red", soft_wrap=True)
        raise typer.Exit(1) from None


def _data(
    names: Sequence[str],
    split: str | None,
    source: str | None,
    revision: str | None,
    checksum: str | None,
    limit: int | None,
    ids: Path | None,
) -> list[Any]:
    from .assemble import DataOptions
    from .errors import BadPlan

    if len(names) > 1 and (split or source or revision or checksum or ids):
        raise BadPlan("--split, --data, --revision, --checksum and --ids belong to one benchmark: name only one")
    chosen = ids.read_text().split() if ids else None
    return [DataOptions(name, split, source, revision, checksum, limit, chosen) for name in names]


def _judge(url: str | None, model: str | None) -> Any:
    from .assemble import EndpointOptions
    from .errors import BadPlan

    if url is None and model is None:
        return None
    if url is None or model is None:
        raise BadPlan("a judge needs both --judge-url and --judge-model")
    return EndpointOptions(url, model, os.environ.get("PINNACE_JUDGE_API_KEY", "none"))


def _shard(text: str) -> tuple[int, int]:
    from .errors import BadPlan

    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise BadPlan(f"--shard {text!r}: write the index from 0 and the number of shards, such as 0/8")
    return int(index), int(count)


def _show(summaries: Sequence[Any]) -> None:
    table = Table("benchmark", "avg@k", "95 %", "pass@k", "questions", "unfinished", "no verdict", box=None)
    for each in summaries:
        value, reach = "–", ""
        if each.score is not None:
            value, reach = f"{100 * each.score.value:.1f}", f"{100 * each.score.low:.1f} to {100 * each.score.high:.1f}"
        top = each.pass_at[each.attempts]
        solved = "–" if top is None else f"{100 * top:.1f}"
        size = f"{each.questions} × {each.attempts}"
        table.add_row(each.benchmark, value, reach, solved, size, str(each.unfinished), str(each.unknown))
        for warning in each.warnings:
            _err.print(f"{each.benchmark}: {warning}", markup=False, highlight=False, style="yellow", soft_wrap=True)
    _out.print(table)
