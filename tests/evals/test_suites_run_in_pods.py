"""An EvalSuite's pods, from `PINNACE_JOB` to the report: real S3, real processes, a model that follows a script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pinnace.evals import Item
from pinnace.evals.suite import check, options
from pinnace.evals.suite.options import Job
from pinnace.evals.suite.shard import shard
from pinnace.evals.tools import GatewayOptions, GatewayTools
from pinnace.outcome import InvalidData, InvalidSpec, ModelUnusable, OutOfReach, failed
from pinnace.storage import Storage
from pinnace.tiny.task import TOOLS
from pinnace_operator.api.evalsuite import EvalSuiteSpec
from pinnace_operator.api.outcome import Outcome

from e2e.faults.model import Answer, Request
from e2e.faults.threads import serving
from e2e.gateway.lab import Gateway, lab, server
from e2e.s3 import ACCESS_KEY, SECRET_KEY
from e2e.synthetic import questions, write
from e2e.world import serve

ITEMS = 6
Manifest = dict[str, Any]


@dataclass
class Place:
    """A bucket with a model and a copy of a benchmark, and the environment that pods get."""

    storage: Storage
    environ: dict[str, str]
    model: str
    data: str
    config_maps: Path

    def spec(self, **change: Any) -> Manifest:
        benchmark = {"name": "gaia", "source": {"uri": self.data}, "attempts": 2, **change.pop("benchmark", {})}
        usual = {
            "model": {"uri": self.model},
            "engine": {"vllm": {"device": "cpu", "toolParser": "hermes"}},
            "agent": {"contextTokens": 4096, "turnTokens": 256},
            "benchmarks": [benchmark],
            "worker": {"concurrency": 2},
        }
        return EvalSuiteSpec.from_manifest({**usual, **change}).to_manifest()

    def job(self, name: str = "suite", resolved: Manifest | None = None, **change: Any) -> str:
        """`PINNACE_JOB`."""
        uid = f"{len(name):04d}{name}-uid"
        return json.dumps({
            "kind": "EvalSuite", "namespace": "ns", "name": name, "uid": uid, "generation": 1,
            "spec": self.spec(**change), "runPath": f"ns/evalsuite/{name}/{uid[:8]}",
            "resolved": {"model": {"uri": self.model}, **(resolved or {})},
        })  # fmt: skip

    def read(self, job: str) -> Job:
        return Job.from_env({"PINNACE_JOB": job})


@pytest.fixture
def place(storage: Storage, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    settings = storage.settings
    model = storage.publish(tiny, settings.root / "models/tiny").uri
    copy = write("gaia", tmp_path / "gaia", [each for each in questions(2 * ITEMS) if "+" in each.question])
    for path in copy.rglob("*"):
        if path.is_file():
            storage.write(settings.root / "data" / path.relative_to(copy).as_posix(), path.read_bytes())
    environ = {
        "PINNACE_S3_ENDPOINT": str(settings.endpoint), "PINNACE_S3_BUCKET": settings.bucket,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "PINNACE_SCRATCH": str(tmp_path / "scratch"), "PINNACE_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(options, "CONFIG_MAPS", tmp_path / "config")
    return Place(storage, environ, model, str(settings.root / "data"), tmp_path / "config")


def sums(request: Request) -> Answer:
    text = next(str(message["content"]) for message in request["messages"] if message["role"] == "user")
    number = int("".join(character for character in text.partition("+")[0] if character.isdigit()) or 0)
    return Answer(f"<answer>{2 * number}</answer>")


def wrong(_: Request) -> Answer:
    return Answer("<answer>no idea</answer>")


@pytest.fixture
def pods(place: Place, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `pinnace eval …` as a pod's container does; the termination message goes to `<name>.json`."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *command: str, **environ: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, **place.environ, "PINNACE_TERMINATION_LOG": str(tmp_path / f"{name}.json"), **environ}
        run = [sys.executable, "-c", "from pinnace.cli import main; main()", "eval", *command]
        started.append(subprocess.Popen(run, env=env))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def said(folder: Path, name: str) -> Outcome:
    found = Outcome.parse((folder / f"{name}.json").read_text())
    assert found is not None
    return found


def test_a_suite_is_checked_served_run_by_two_shards_and_reported(
    place: Place, pods: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    with serving(sums, context=8192) as model:
        job = place.job(shards=2)
        assert pods("check", "preflight", PINNACE_JOB=job).wait(120) == 0
        assert not model.requests, "the check asked the model"
        assert pods("fetch", "fetch", str(tmp_path / "served"), PINNACE_JOB=job).wait(120) == 0
        assert {"config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "served").iterdir()}
        shards = [
            pods(f"shard-{n}", "shard", PINNACE_JOB=job, JOB_COMPLETION_INDEX=str(n), PINNACE_MODEL_URLS=model.url)
            for n in range(2)
        ]
        assert [process.wait(300) for process in shards] == [0, 0]
        asked = len(model.requests)
    first, second = (said(tmp_path, f"shard-{n}") for n in range(2))
    assert first.output == second.output is not None
    assert asked == ITEMS * 2, "an attempt was lost or repeated"
    (result,) = first.benchmarks
    assert (result.name, result.done, result.total, result.score, result.pass_at) == ("gaia", 12, 12, "100.0", "100.0")
    assert "gaia 100.0" in first.message
    assert first.output is not None
    report = place.storage.open(f"{first.output.uri}/report.html").read().decode()
    assert report.startswith("<!doctype html>")
    assert "suite: " in report
    # A shard that comes late finds everything done and says the same.
    with serving(sums, context=8192) as other:
        again = pods("late", "shard", PINNACE_JOB=job, PINNACE_MODEL_URLS=other.url)
        assert again.wait(120) == 0
        assert not other.requests
    assert said(tmp_path, "late").output == first.output


def test_a_shard_that_is_asked_to_end_keeps_what_was_paid_for(
    place: Place, pods: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    import asyncio

    async def slow(request: Request) -> Answer:
        await asyncio.sleep(0.3)
        return sums(request)

    with serving(slow, context=8192) as model:
        job, more = place.job(), {"PINNACE_MODEL_URLS": model.url}
        running = pods("first", "shard", PINNACE_JOB=job, **more)
        deadline = time.monotonic() + 120
        while len(model.requests) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 85
        assert said(tmp_path, "first").reason == "Checkpointed"
        asked = len(model.requests)
        assert asked < ITEMS * 2
        assert pods("second", "shard", PINNACE_JOB=job, **more).wait(120) == 0
        assert len(model.requests) <= ITEMS * 2 + 2, "more was repeated than what was in flight"
    assert said(tmp_path, "second").benchmarks[0].done == ITEMS * 2


def run(place: Place, url: str, monkeypatch: pytest.MonkeyPatch, **job: Any) -> Outcome:
    monkeypatch.setenv("PINNACE_MODEL_URLS", url)
    return shard(place.read(place.job(**job)))


def test_a_suite_is_compared_with_another_question_by_question(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(wrong, context=8192) as base:
        first = run(place, base.url, monkeypatch, name="base")
    assert first.output is not None
    with serving(sums, context=8192, name="better") as better:
        pinned = {"compareTo.base": {"uri": first.output.uri, "digest": first.output.digest}}
        second = run(place, better.url, monkeypatch, name="better", compareTo=["base"], resolved=pinned)
    (compared,) = second.benchmarks[0].compared
    assert (compared.suite, compared.difference) == ("base", "+100.0")
    assert "+100.0" in second.message
    assert second.output is not None
    assert "base: " in place.storage.open(f"{second.output.uri}/report.html").read().decode()


def test_suites_that_share_records_do_nothing_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = str(place.storage.settings.root / "shared")
    with serving(sums, context=8192) as model:
        run(place, model.url, monkeypatch, name="one", records=shared)
        asked = len(model.requests)
        more = run(place, model.url, monkeypatch, name="more", records=shared, benchmark={"attempts": 3})
        assert len(model.requests) == asked + ITEMS
    assert more.benchmarks[0].total == 3 * ITEMS


def test_suites_that_share_records_at_the_same_time_share_the_work(
    place: Place, pods: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    import asyncio

    async def slow(request: Request) -> Answer:
        await asyncio.sleep(0.5)
        return sums(request)

    shared = str(place.storage.settings.root / "shared")
    with serving(slow, context=8192) as model:
        both = [
            pods(name, "shard", PINNACE_JOB=place.job(name, records=shared), PINNACE_MODEL_URLS=model.url)
            for name in ("one", "two")
        ]
        assert [process.wait(300) for process in both] == [0, 0]
        assert len(model.requests) == ITEMS * 2, "a shard took another suite's attempt away"
    assert said(tmp_path, "one").benchmarks == said(tmp_path, "two").benchmarks
    assert said(tmp_path, "one").output != said(tmp_path, "two").output


def test_at_the_bound_of_its_budget_a_suite_reports_what_it_has(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinnace.evals.suite.shard._REFRESH_SECONDS", 0.01)
    import asyncio

    async def slow(request: Request) -> Answer:
        await asyncio.sleep(0.2)
        return sums(request)

    with serving(slow, context=8192) as model:
        budget = {"tokens": 3, "promptPrice": "1000000"}
        told = run(place, model.url, monkeypatch, budget=budget)
        assert len(model.requests) < ITEMS * 2
    (result,) = told.benchmarks
    assert result.done < result.total == ITEMS * 2
    assert {each.reason: each.count for each in result.failures}["unfinished"] == result.total - result.done
    assert result.score is not None
    assert float(result.score) < 100, "what was not begun must not count as solved"
    assert told.output is not None


def own_question(place: Place, **more: Any) -> Manifest:
    """A benchmark of one's own, from a ConfigMap."""
    folder = place.config_maps / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.yaml").write_text(json.dumps({"name": "own", "data": "q.jsonl", "grader": "number", **more}))
    (folder / "q.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n')
    return {"name": "own", "attempts": 1, "source": {"configMap": {"name": "mine", "key": "own.yaml"}}}


def test_ones_own_benchmark_comes_from_a_config_map(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = own_question(place)
    check.preflight(place.read(place.job(benchmark=benchmark)))
    with serving(sums, context=8192) as model:
        told = run(place, model.url, monkeypatch, benchmark=benchmark)
    assert [(each.name, each.score) for each in told.benchmarks] == [("own", "100.0")]


@pytest.mark.parametrize(
    ("change", "failure", "told"),
    [
        ({"benchmark": {"name": "giaa"}}, InvalidSpec, "did you mean gaia"),
        ({"benchmark": {"split": "training"}}, InvalidSpec, "no split 'training'"),
        ({"benchmark": {"checksum": "sha256:" + "0" * 64}}, InvalidData, "not sha256:0000"),
        ({"benchmark": {"source": {"uri": "s3://nowhere/data"}}}, InvalidData, "nothing is stored there"),
        ({"benchmark": {"name": "seal-0", "source": None}}, InvalidSpec, "give revision <commit>"),
        ({"benchmark": {"profile": "Community"}}, InvalidSpec, "is graded by a judge"),
        ({"agent": {"policy": "fould", "turnTokens": 256}}, InvalidSpec, "did you mean fold"),
        ({"agent": {"contextTokens": 1_000_000}}, InvalidSpec, "longer than the server's"),
        ({"model": {"uri": "s3://nowhere/model"}}, ModelUnusable, "nothing is stored"),
        ({"judge": {"url": "http://127.0.0.1:9/v1", "model": "j"}}, OutOfReach, "does not answer"),
        ({"engine": {"external": {"url": "http://127.0.0.1:9/v1", "tokenizer": "s3://x"}}}, OutOfReach, "not answer"),
    ],
)
def test_what_can_not_work_is_said_before_a_model_is_served(
    place: Place, change: Manifest, failure: type[Exception], told: str
) -> None:
    change = json.loads(json.dumps(change).replace("s3://nowhere", str(place.storage.settings.root / "nowhere")))
    resolved: Manifest = {}
    if "external" in change.get("engine", {}):
        change["engine"]["external"]["tokenizer"] = place.model
        change["model"] = None
    if change.get("model"):
        resolved["model"] = change["model"]
    with pytest.raises(failure, match=told):
        check.preflight(place.read(place.job(resolved=resolved, **change)))


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """With the token that the pods have."""
    with lab(tmp_path) as gateways:
        made = gateways.gateway({"servers": [server("everything", gateways.backend())]})
        made.wait_tools("echo")
        monkeypatch.setenv("PINNACE_TOOLS_TOKEN", made.token)
        yield made


def in_sandbox(gateway: Gateway, *tools: str, **change: Any) -> Manifest:
    """What a job has more with a ToolSandbox, of which these tools are offered."""
    resolved = {"toolSandbox": {"uri": gateway.url, "secretName": "tools-tokens", "key": "default"}}
    return {"toolSandbox": {"name": "tools", "tools": list(tools)}, "resolved": resolved, **change}


def test_tools_are_asked_for_with_the_token_that_the_pods_have(
    place: Place, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = place.read(place.job(benchmark=own_question(place), **in_sandbox(gateway)))
    check.preflight(job)
    monkeypatch.setenv("PINNACE_TOOLS_TOKEN", "another")
    with pytest.raises(InvalidSpec, match=r"check toolSandbox\.tenant"):
        check.preflight(job)
    gateway.stop()
    with pytest.raises(OutOfReach, match="can't be reached"):
        check.preflight(job)


@pytest.mark.parametrize(
    ("tools", "needs", "context", "told"),
    [
        (["ehco"], [], 4096, r"toolSandbox\.tools ehco: .* has no such tool; there is echo"),
        (["echo"], ["add"], 4096, r"toolSandbox\.tools leaves out 'add'"),
        ([], ["adds"], 4096, r"has no tool 'adds', which these questions need"),
        ([], [], 520, r"\d+ tool definitions .* a context of 520, .* choose tools by toolSandbox\.tools"),
    ],
    ids=["unknown", "needed", "missing", "too many"],
)
def test_tools_that_can_not_be_offered_are_said_before_a_model_is_served(
    place: Place, gateway: Gateway, tools: list[str], needs: list[str], context: int, told: str
) -> None:
    agent = {"contextTokens": context, "turnTokens": 128}
    job = place.job(benchmark=own_question(place, needs=needs), **in_sandbox(gateway, *tools, agent=agent))
    with pytest.raises(InvalidSpec, match=told):
        check.preflight(place.read(job))


def test_the_agent_is_offered_what_was_chosen_else_what_the_questions_need(
    place: Place, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = str(place.storage.settings.root / "shared")
    with serving(sums, context=16384) as model:

        def offered(*chosen: str) -> list[set[str]]:
            """Of each attempt."""
            before = len(model.requests)
            change = in_sandbox(gateway, *chosen, records=shared, benchmark=own_question(place, needs=["add"]))
            run(place, model.url, monkeypatch, name="-".join(("suite", *chosen)), **change)
            lists = [{each["function"]["name"] for each in asked["tools"]} for asked in model.requests[before:]]
            return [names - {"recall"} for names in lists if names != {"probe"}]

        assert offered() == [{"add"}]
        assert offered("add") == [], "the same tools are another configuration"
        assert offered("add", "echo") == [{"add", "echo"}]


async def test_the_gateway_offers_add_to_the_letter_as_training_taught_it(tmp_path: Path) -> None:
    with lab(tmp_path) as gateways:
        gateway = gateways.gateway({"servers": [server("calculator", serve(gateways, "calculator"))]})
        gateway.wait_tools("add")
        used = GatewayTools(GatewayOptions(gateway.url, gateway.token), ["add"])
        async with used(Item("a", "31+47", "78")) as tools:
            assert json.dumps(await tools.schemas()) == json.dumps(TOOLS)
            assert (await tools.call("add", {"a": 31, "b": 47})).text == "78"
        await used.aclose()


def test_a_judge_that_is_down_is_no_reason_to_give_up(place: Place) -> None:
    judge = {"url": "http://127.0.0.1:9/v1", "model": "j"}
    with pytest.raises(OutOfReach) as caught:
        check.preflight(place.read(place.job(judge=judge)))
    outcome = failed(caught.value)
    assert (outcome.reason, outcome.exit_code) == ("JudgeUnavailable", 1)


def test_a_key_that_the_judge_refuses_is_said(place: Place) -> None:
    with serving(sums, name="other") as judge, pytest.raises(InvalidSpec, match="it has no model 'j'"):
        check.preflight(place.read(place.job(judge={"url": judge.url, "model": "j"})))


@pytest.mark.parametrize(
    ("serves", "told"),
    [({"context": 1024}, "longer than the server's 1024"), ({"tools": False, "context": 8192}, "tool parser")],
)
def test_what_only_the_server_knows_is_said_before_an_attempt(
    place: Place, monkeypatch: pytest.MonkeyPatch, serves: Manifest, told: str
) -> None:
    if "tools" in serves:
        monkeypatch.setattr("pinnace.evals.suite.options._tools", lambda job: "tests.evals.conftest:no_tools")
    with serving(sums, **serves) as model, pytest.raises(InvalidSpec, match=told):
        run(place, model.url, monkeypatch)


def test_a_server_that_is_gone_is_waited_for_and_may_come_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinnace.evals.suite.shard._SERVER_SECONDS", 3)
    began = time.monotonic()
    with pytest.raises(OutOfReach) as caught:
        run(place, "http://127.0.0.1:9/v1", monkeypatch)
    assert failed(caught.value).reason == "RolloutFailed"
    assert time.monotonic() - began > 3
