"""EvalSuite: what it adds to the life that all jobs share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from pinnace_operator.api.conditions import ConditionType, Reason, explain, is_true
from pinnace_operator.api.evalbenchmark import EvalBenchmark
from pinnace_operator.api.evalresult import BenchmarkResult
from pinnace_operator.api.evalstatus import EvalSuiteStatus
from pinnace_operator.api.evalsuite import EvalSuite, EvalSuiteSpec
from pinnace_operator.api.status import InputRef
from pinnace_operator.builders import evals, evals_network
from pinnace_operator.builders.identity import ROLE, Identity
from pinnace_operator.builders.jobset import Budget
from pinnace_operator.reconcile import pods, tools, upstream
from pinnace_operator.reconcile.decide import decide
from pinnace_operator.reconcile.job import Job, JobType, Models
from pinnace_operator.reconcile.plan import Observed, OperatorSettings, Plan, Raw
from pinnace_operator.reconcile.pod_environment import images, variables
from pinnace_operator.reconcile.upstream import Missing, Need

SUITE = "EvalSuite"
REMEDIES = {
    Reason.INVALID_DATA: "accept the dataset's terms and set hubSecretName, give a copy by benchmarks[].source, or "
    "correct revision or checksum, and create the suite again",
    Reason.MODEL_UNUSABLE: "point spec.model at a complete Hugging Face layout with tokenizer and chat template, and "
    "create the suite again",
    Reason.OUT_OF_MEMORY: "raise resources.limits.memory of worker or engine, or lower worker.concurrency or the "
    "engine's contextTokens, and create the suite again",
}
"""What to change in an EvalSuite; other reasons have one remedy for all kinds."""


def reconcile(resource: Raw, observed: Observed) -> Plan:
    """What to do for an EvalSuite (as the API server returns it)."""
    return decide(EVAL, resource, observed)


def references(resource: Raw) -> tuple[tuple[str, str], ...]:
    """(kind, name) of the model's job, the ToolSandbox and the suites to compare with."""
    spec = resource.get("spec") or {}
    others = [(SUITE, str(each)) for each in spec.get("compareTo") or ()]
    return (*upstream.references([spec.get("model")]), *tools.references(spec.get("toolSandbox")), *others)


def _parse(resource: Raw) -> EvalSuiteSpec:
    return EvalSuite.from_manifest({name: value for name, value in resource.items() if name != "status"}).spec


def _lineage(spec: EvalSuiteSpec) -> tuple[InputRef, ...]:
    endpoint = [InputRef(ref=f"model: {spec.engine.external.url}"[:512])] if spec.engine.external else []
    return (*endpoint, *map(_benchmark, spec.benchmarks))


def _benchmark(each: EvalBenchmark) -> InputRef:
    """Where the questions come from; the report has the digest of what was read."""
    what = f"benchmarks.{each.name}"
    if each.source and each.source.uri:
        return InputRef(ref=f"{what}: {each.source.uri}"[:512], uri=each.source.uri, digest=each.checksum)
    if each.source and each.source.config_map:
        source = each.source.config_map
        return InputRef(ref=f"{what}: ConfigMap/{source.name} {source.key}"[:512], digest=each.checksum)
    return InputRef(ref=f"{what}: shipped{f' @{each.revision}' if each.revision else ''}"[:512], digest=each.checksum)


def _needs(job: Job) -> tuple[Need | Missing, ...]:
    spec: EvalSuiteSpec = job.spec  # type: ignore[assignment]  # of this kind's jobs
    seen = job.observed.upstreams
    sandbox = spec.tool_sandbox
    needed = [tools.sandbox(sandbox.name, sandbox.tenant, seen)] if sandbox else []
    return (*needed, *(_other(job, name, seen.get((SUITE, name))) for name in spec.compare_to))


def _other(job: Job, name: str, found: Raw | None) -> Need | Missing:
    """The report of another suite; it is pinned from the first start on."""
    what, field = f"{SUITE}/{name}", f"compareTo.{name}"
    pinned = upstream.pinned(job.before.inputs, f"compareTo: {what}") if job.before.start_time else None
    if pinned:
        return Need(field, {"uri": pinned.uri, "digest": pinned.digest}, pinned)
    if found is None:
        return tools.wait(f"Waits for {what}, which does not exist yet: create it in this namespace")
    try:
        status = EvalSuiteStatus.from_manifest(dict(found.get("status") or {}))
    except ValidationError:
        return tools.wait(f"Waits for {what}, whose status this operator can't read")
    if is_true(status.conditions, ConditionType.COMPLETE) and status.output:
        ref = InputRef(ref=f"compareTo: {what}", uri=status.output.uri, digest=status.output.digest)
        return Need(field, {"uri": ref.uri, "digest": ref.digest}, ref)
    if is_true(status.conditions, ConditionType.FAILED):
        fact = f"{what} failed and has no report"
        remedy = "repair it, or leave it out of compareTo, and create the suite again"
        return Missing(Reason.INPUT_FAILED, explain(Reason.INPUT_FAILED, fact, remedy=remedy))
    return tools.wait(f"Waits for the report of {what}, which is {status.state}")


def _build(
    identity: Identity, spec: EvalSuiteSpec, settings: OperatorSettings, models: Models, budget: Budget
) -> dict[str, Any]:
    env = variables(identity, spec, settings, models, budget.first_attempt)
    return evals.evaluation(
        identity, spec, env=env, tools=models.get("toolSandbox"), images=images(settings), budget=budget
    )


def _beside(identity: Identity, spec: EvalSuiteSpec, settings: OperatorSettings) -> tuple[dict[str, Any], ...]:
    return evals_network.policies(
        identity, spec, storage=settings.storage.endpoint, operator=settings.progress_url
    )  # fmt: skip


def _starting(job: Job) -> str:
    """Which of the three steps to a running suite is being taken."""
    names = (evals.PREFLIGHT, evals.ROLLOUT)
    roles = {role: [pod for pod in job.gang if pod.labels.get(ROLE) == role] for role in names}
    if any(not pod.ended for pod in roles[evals.PREFLIGHT]):
        return "Checking benchmarks, judge and tools before the model is served."
    waiting = [pod for pod in roles[evals.ROLLOUT] if not pod.ready]
    if any(pod.runs_init() for pod in waiting):
        return f"Fetching the model in {len(waiting)} of {len(roles[evals.ROLLOUT])} servers."
    return f"Loading the model in {len(waiting)} of {len(roles[evals.ROLLOUT])} servers." if waiting else ""


def _results(job: Job) -> dict[str, Any]:
    """The table: of a shard that has ended, else as last reported, else as it was."""
    before: EvalSuiteStatus = job.before  # type: ignore[assignment]  # of this kind's jobs
    report = job.observed.progress
    said = [outcome.benchmarks for _, outcome in pods.outcomes(job.pods) if outcome.benchmarks]
    table = said[-1] if said else (report.benchmarks if report else ()) or before.benchmarks
    unique = {each.name: each for each in table}
    return {"benchmarks": tuple(unique.values()), "score": overall(unique.values())}


def overall(benchmarks: Iterable[BenchmarkResult]) -> str | None:
    """Mean over the benchmarks that have a score, such as `63.3 ± 4.1`: they are samples of their own."""
    scored = list(_halves(benchmarks))
    if not scored:
        return None
    mean = math.fsum(score for score, _ in scored) / len(scored)
    reach = math.sqrt(math.fsum(half**2 for _, half in scored)) / len(scored)
    return f"{mean:.1f} ± {reach:.1f}"


def _halves(benchmarks: Iterable[BenchmarkResult]) -> Iterator[tuple[float, float]]:
    for each in benchmarks:
        try:
            yield float(each.score or ""), (float(each.high or "") - float(each.low or "")) / 2
        except ValueError:
            continue


EVAL = JobType(
    role=evals.WORKER,
    crashed=Reason.SHARD_FAILED,
    crashes={evals.SERVER: Reason.ROLLOUT_FAILED, evals.FETCH: Reason.ROLLOUT_FAILED},
    parse=_parse,
    # One shard is enough to make all attempts.
    nodes=lambda _: 1,
    pod_resources=lambda spec: spec.worker.resources.to_manifest(),
    sources=lambda spec: {"model": spec.model} if spec.model else {},
    data=_lineage,
    needs=_needs,
    build=_build,
    beside=_beside,
    image=evals.image_of,
    overlay=lambda spec: spec.worker.pod_template,
    status=EvalSuiteStatus,
    results=_results,
    starting=_starting,
    remedies=REMEDIES,
    peers=True,
)
