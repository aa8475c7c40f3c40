"""EvalSuites whose shards, judge, tools or store fail: `python -m e2e.faults.evals` prints the table of docs/evals.md.

Shards are the processes that their pods run, before a real S3, gateway and offline world; only models follow a script,
so that the table is known beforehand. It must be that one, with every attempt recorded once.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinnace.evals.report import Summary
from pinnace.storage import S3Settings, Storage
from pinnace.tiny.model import write_tiny_model
from pinnace_operator.api.evalsuite import EvalSuiteSpec
from pinnace_operator.api.outcome import Outcome

from e2e.faults.flaky import flaky
from e2e.faults.model import Answer, Request, ScriptedModel, Trouble
from e2e.faults.threads import in_thread, serving
from e2e.gateway.lab import TOKEN, eventually, lab, server
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server, s3_server
from e2e.scout import Oracle, read_tasks
from e2e.stored import keys, raw_client
from e2e.synthetic import Question, write
from e2e.world import serve_world

SHARDS = 3
CONTEXT = 32768
_MOST_RESTARTS = 40
_ASKED = re.compile(r"What is (\d+) \+")
Table = Mapping[str, list[str]]


class Shards:
    """Worker processes, each started again when it fails, as `backoffLimitPerIndex` does; `restarts` counts that."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.restarts = 0
        self._folder = folder
        self._environ = environ
        self._running = [self._start(index) for index in range(SHARDS)]
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def kill(self, index: int) -> None:
        self._running[index].kill()

    def finish(self, timeout: float = 900) -> Outcome:
        """What they come to, once all have ended well."""
        eventually("all have ended well", lambda: all(process.poll() == 0 for process in self._running), within=timeout)
        said = {(self._folder / f"{index}.json").read_text() for index in range(SHARDS)}
        found = [outcome for text in said if (outcome := Outcome.parse(text)) is not None]
        assert len({each.output for each in found}) == 1, "shards disagree about the report"
        return found[0]

    def end(self) -> None:
        self._closed.set()
        self._watcher.join()
        for process in self._running:
            process.kill()
            process.wait()

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        own = {
            "JOB_COMPLETION_INDEX": str(index), "PINNACE_SCRATCH": str(self._folder / f"scratch-{index}"),
            "PINNACE_TERMINATION_LOG": str(self._folder / f"{index}.json"),
        }  # fmt: skip
        command = [sys.executable, "-c", "from pinnace.cli import main; main()", "eval", "shard"]
        with (self._folder / f"{index}.log").open("ab") as log:
            return subprocess.Popen(command, env={**os.environ, **self._environ, **own}, stdout=log, stderr=log)

    def _watch(self) -> None:
        while not self._closed.wait(0.1):
            for index, process in enumerate(self._running):
                if process.poll() not in {None, 0} and self.restarts < _MOST_RESTARTS:
                    self.restarts += 1
                    self._running[index] = self._start(index)


@dataclass(frozen=True)
class Played:
    """A suite that was disturbed and came to the table that it should."""

    attempts: int
    requests: int
    restarts: int
    seconds: float
    score: str


@dataclass
class Stage:
    """A bucket with a model."""

    store: S3Server
    folder: Path
    bucket: str = field(default_factory=lambda: f"faults-{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        raw_client(self.store.endpoint).create_bucket(Bucket=self.bucket)
        settings = S3Settings(self.bucket, endpoint=self.store.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY)
        self.storage, self.root = Storage(settings), settings.root
        write_tiny_model(self.folder / "tiny")
        self.model = self.storage.publish(self.folder / "tiny", self.root / "models/tiny").uri

    def questions(self, benchmark: str, count: int) -> str:
        """A copy of a benchmark with so many sums; where it is."""
        made = [Question(f"sum-{n:03d}", f"What is {n} + {n}?", str(2 * n), {"level": 1}) for n in range(count)]
        copy = write(benchmark, self.folder / benchmark, made)
        for path in (each for each in copy.rglob("*") if each.is_file()):
            self.storage.write(self.root / "data" / path.relative_to(copy).as_posix(), path.read_bytes())
        return str(self.root / "data")

    def play(
        self,
        benchmark: Mapping[str, Any],
        model: ScriptedModel,
        wanted: Table,
        disturb: Callable[[Shards], None],
        *,
        resolved: Mapping[str, Any] | None = None,
        **spec: Any,
    ) -> Played:
        """Runs the suite to its end, disturbed once a tenth of its answers has been asked for."""
        total, began = sum(map(len, wanted.values())), time.monotonic()
        shards = Shards(self.folder, self._environ(benchmark, model.url, resolved or {}, spec))
        try:
            asked(model, total // 10)
            disturb(shards)
            outcome = shards.finish()
        finally:
            shards.end()
        assert outcome.output is not None
        (body,) = json.loads(self.storage.open(f"{outcome.output.uri}/summary.json").read())
        summary = Summary.model_validate(body)
        assert {each.item: [one.verdict for one in each.attempts] for each in summary.items} == wanted
        records = [key for key in keys(raw_client(self.store.endpoint), self.bucket) if key.endswith("/record.json")]
        assert len(records) == len(set(records)) == total
        (result,) = outcome.benchmarks
        seconds = time.monotonic() - began
        return Played(total, len(model.requests), shards.restarts, seconds, str(result.score))

    def _environ(self, benchmark: Any, url: str, resolved: Any, spec: Any) -> dict[str, str]:
        usual = {
            "model": {"uri": self.model}, "engine": {"vllm": {"device": "cpu", "toolParser": "hermes"}},
            "agent": {"contextTokens": CONTEXT, "turnTokens": 256}, "benchmarks": [benchmark], "shards": SHARDS,
            "worker": {"concurrency": 4},
        }  # fmt: skip
        job = {
            "kind": "EvalSuite", "namespace": "ns", "name": "suite", "uid": secrets.token_hex(8), "generation": 1,
            "spec": EvalSuiteSpec.from_manifest({**usual, **spec}).to_manifest(), "runPath": "ns/evalsuite/suite/1",
            "resolved": {"model": {"uri": self.model}, **resolved},
        }  # fmt: skip
        return {
            "PINNACE_JOB": json.dumps(job), "PINNACE_MODEL_URLS": url, "PINNACE_TOOLS_TOKEN": TOKEN,
            "PINNACE_S3_ENDPOINT": self.store.endpoint, "PINNACE_S3_BUCKET": self.bucket,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "PINNACE_CACHE": str(self.folder / "cache"),
        }  # fmt: skip


def asked(model: ScriptedModel, count: int) -> None:
    """Waits until the model has got so many requests."""
    eventually(f"{count} requests", lambda: len(model.requests) >= count, within=600)


async def mostly(request: Request) -> Answer:
    """Right but for every fourth sum."""
    await asyncio.sleep(0.1)
    number = _number(str(next(each["content"] for each in request["messages"] if each["role"] == "user")))
    value = 2 * number + (number % 4 == 0)
    return Answer(f"Exact Answer: {value}\n<answer>{value}</answer>")


def _number(text: str) -> int:
    found = _ASKED.search(text)
    assert found is not None, text
    return int(found.group(1))


def _sums(count: int, attempts: int) -> Table:
    return {f"sum-{n:03d}": ["right" if n % 4 else "wrong"] * attempts for n in range(count)}


def shards_killed(stage: Stage, items: int, attempts: int, kills: int) -> Played:
    """By SIGKILL, at random, all along."""
    dice, total = random.Random(7), items * attempts  # noqa: S311 - faults that can be repeated

    def disturb(shards: Shards) -> None:
        for number in range(kills):
            asked(model, total // 10 + number * total * 8 // 10 // kills)
            shards.kill(dice.randrange(SHARDS))

    with serving(mostly, context=CONTEXT) as model:
        benchmark = {"name": "gaia", "source": {"uri": stage.questions("gaia", items)}, "attempts": attempts}
        played = stage.play(benchmark, model, _sums(items, attempts), disturb)
    assert played.restarts >= kills
    assert played.requests - total <= played.restarts * 4, "more was asked again than what was under way"
    return played


def judge_down(stage: Stage, items: int, attempts: int, seconds: float) -> Played:
    """Every request to the judge breaks off, or gets 503."""
    down, refused = threading.Event(), 0

    def judge(request: Request) -> Answer | Trouble:
        nonlocal refused
        if down.is_set():
            refused += 1
            return Trouble(503, drop=refused % 2 == 0)
        text = str(request["messages"][0]["content"])
        right = f"<answer>{2 * _number(text)}</answer>" in text
        return Answer(f"extracted_final_answer: x\nreasoning: y\ncorrect: {'yes' if right else 'no'}\nconfidence: 90")

    def disturb(_: Shards) -> None:
        down.set()
        time.sleep(seconds)
        down.clear()

    with serving(mostly, context=CONTEXT) as model, serving(judge) as second:
        benchmark = {"name": "hle", "source": {"uri": stage.questions("hle", items)}, "attempts": attempts}
        judge_spec = {"url": second.url, "model": "scripted"}
        played = stage.play(benchmark, model, _sums(items, attempts), disturb, judge=judge_spec)
    assert refused > 0
    assert played.requests == items * attempts, "the agent was asked again because of the judge"
    return played


def gateway_flaky(stage: Stage, attempts: int, share: float) -> Played:
    """A share of all requests to the gateway breaks off, or gets 503; Scout's short questions."""
    from pinnace.evals.benchmarks import find

    tasks = read_tasks(Path(find("scout").splits["test"].data.shipped or "") / "test.jsonl.gz")
    short = [task["id"] for task in tasks.values() if int(task["hops"]) <= 4]
    with lab(stage.folder) as gateways:
        gateway = gateways.gateway({"servers": [server("world", serve_world(gateways))]})
        gateway.wait_tools("search", "open", "find")
        with in_thread(lambda: flaky(gateway.url, share)) as proxy, serving(Oracle(tasks), context=CONTEXT) as model:
            played = stage.play(
                {"name": "scout", "split": "short", "attempts": attempts},
                model,
                {item: ["right"] * attempts for item in short},
                lambda _: None,
                toolSandbox={"name": "tools"},
                resolved={"toolSandbox": {"uri": proxy.url, "secretName": "tokens", "key": "default"}},
            )
            failed = sum(proxy.failed.values())
            assert failed > share * proxy.passed / 2
    return played


def store_down(stage: Stage, items: int, attempts: int, seconds: float) -> Played:
    """S3 is killed and comes back."""

    def disturb(_: Shards) -> None:
        stage.store.stop()
        time.sleep(seconds)
        stage.store.start()

    with serving(mostly, context=CONTEXT) as model:
        benchmark = {"name": "gaia", "source": {"uri": stage.questions("gaia", items)}, "attempts": attempts}
        played = stage.play(benchmark, model, _sums(items, attempts), disturb)
    assert played.requests == items * attempts, "an attempt was made twice"
    return played


FAULTS: dict[str, Callable[[Stage], Played]] = {
    "8 shard processes killed at random": lambda stage: shards_killed(stage, 200, 4, 8),
    "judge down for 60 s": lambda stage: judge_down(stage, 50, 4, 60),
    "gateway fails 20 % of all requests": lambda stage: gateway_flaky(stage, 4, 0.2),
    "S3 down for 30 s": lambda stage: store_down(stage, 50, 4, 30),
}


@contextmanager
def stage() -> Iterator[Stage]:
    """With a SeaweedFS of its own."""
    with s3_server() as store, tempfile.TemporaryDirectory(prefix="pinnace-faults-") as folder:
        yield Stage(store, Path(folder))


if __name__ == "__main__":
    print("| fault | attempts | lost or twice | requests to the model | restarts | table | score | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name, fault in FAULTS.items():
        with stage() as each:
            done = fault(each)
        print(f"| {name} | {done.attempts} | 0 | {done.requests} | {done.restarts} | the same | {done.score} | "
              f"{done.seconds:.0f} |", flush=True)  # fmt: skip
