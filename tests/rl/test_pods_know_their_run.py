"""From an RLRun to what its processes read, and a run whose processes are started as the operator's pods start them."""

from __future__ import annotations

import inspect
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pinnace.agent import DIALECTS, find_policy
from pinnace.outcome import InvalidData, InvalidSpec
from pinnace.rl.config import RunConfig
from pinnace.rl.loss import CORRECTIONS, LOSSES
from pinnace.rl.pod import arithmetic, prepare, settings
from pinnace.rl.pod.settings import Place, run_config
from pinnace.rl.signal.advantage import ADVANTAGES
from pinnace.rl.signal.long_failures import LongFailures
from pinnace.rl.signal.samples import Normalisation
from pinnace.rl.signal.shaping import ShapeBy
from pinnace.storage import Storage
from pinnace.tiny.model import write_tiny_model
from pinnace_operator.api import rlagent, rlsignal
from pinnace_operator.api.evalagent import Dialect
from pinnace_operator.api.outcome import Outcome
from pinnace_operator.api.rlrun import RLRun, RLRunSpec
from pinnace_operator.builders import rl
from pinnace_operator.reconcile import registry
from pinnace_operator.reconcile.plan import Observed, OperatorSettings

from e2e.apiserver import free_port
from e2e.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from e2e.simulation.objects import NOW
from e2e.simulation.rlrun import rlrun
from e2e.stored import raw_client

SAMPLES = Path(__file__).parents[2] / "crds" / "samples"
HERE = Place(
    "s3://b/ns/rlrun/r/1", "http://c:1", "http://p:2", ("http://a:1", "http://b:1"), ("http://a:2", "http://b:2")
)
TINY: dict[str, Any] = {
    "tasks": {"builtin": {"name": "arithmetic-tools", "samples": 7}}, "steps": 2, "contextTokens": 256, "turnTokens": 8,
    "agent": {"loop": {"turns": 2}, "attemptSeconds": 60}, "reward": {"function": "tests.rl.players:coin"},
    "schedule": {"groupsPerStep": 2, "groupSize": 2, "concurrency": 8}, "optimizer": {"learningRate": "1e-3"},
    "checkpoint": {"everySteps": 1}, "rollout": {"reference": {}},
    "trainer": {"device": "cpu", "engine": "Torch", "precision": "fp32", "gradientCheckpointing": False},
}  # fmt: skip


def runs() -> list[RLRunSpec]:
    found = [each for path in sorted(SAMPLES.glob("rl-*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    return [RLRun.from_manifest(each).spec for each in found if each["kind"] == "RLRun"]


def spec(**change: Any) -> RLRunSpec:
    return RLRun.from_manifest(rlrun(**{**TINY, **change})).spec


def test_every_sample_is_a_configuration_that_processes_read_back() -> None:
    for each in runs():
        place = Place(
            "s3://b/run", "http://c:1", "http://p:1", *((("http://s:1",) * each.rollout.server.replicas,) * 2)
        )
        made = run_config(each, place)
        assert RunConfig.model_validate_json(made.model_dump_json(by_alias=True)) == made
        assert made.schedule.group_size == each.schedule.group_size
        assert made.engine.token_budget >= made.context_tokens == each.context_tokens
        assert {one.kind for one in made.servers} == {each.rollout.engine}


def test_every_word_of_the_api_is_one_that_the_library_knows() -> None:
    said = settings._words
    assert {said(each) for each in rlsignal.Advantage} == set(ADVANTAGES)
    assert {said(each) for each in rlsignal.Normalisation} == set(get_args(Normalisation))
    assert {said(each) for each in rlsignal.LongFailures} == set(get_args(LongFailures))
    assert {said(each) for each in rlsignal.ShapeBy} == set(get_args(ShapeBy))
    assert {each.lower() for each in Dialect} == set(DIALECTS)
    for policy in rlagent.ContextPolicy:
        assert find_policy(said(policy)).refine is None


@pytest.mark.parametrize("name", sorted(rlsignal._LOSSES))
def test_losses_get_the_parameters_that_they_take(name: str) -> None:
    made = run_config(spec(loss={name: {}}, rollout={"reference": {"replicas": 2}}), HERE).loss
    known = inspect.signature(LOSSES[made.name]).parameters
    assert set(made.parameters) == {name for name, each in known.items() if each.kind is each.KEYWORD_ONLY}
    assert made.parameters == {name: known[name].default for name in made.parameters}, (
        "the API's defaults are the library's"
    )


def test_corrections_get_the_parameters_that_they_take() -> None:
    wanted = {"corrections": {"icepop": {}, "tis": {"cap": "3"}, "geometricMask": {}, "offPolicyMask": {}}}
    made = run_config(spec(loss=wanted, rollout={"reference": {"replicas": 2}}), HERE).loss
    assert set(made.corrections) == set(CORRECTIONS)
    assert made.corrections["tis"] == {"cap": 3.0}
    for name, given in made.corrections.items():
        assert set(given) <= set(inspect.signature(CORRECTIONS[name]).parameters)


async def test_the_built_in_task_has_a_tool_and_judges() -> None:
    (task,) = arithmetic.tasks("arithmetic-tools", 1, 3)
    a, b = task["question"].split("+")
    async with arithmetic.tools(task) as tools:
        assert (await tools.call("add", {"a": int(a), "b": int(b)})).text == task["answer"]
        assert (await tools.call("add", {"a": a})).outcome == "tool_error"
        assert (await tools.call("subtract", {})).outcome == "invalid_arguments"
    assert arithmetic.reward(task, f" {task['answer']}\n")
    assert not arithmetic.reward(task, "no idea")
    assert not arithmetic.reward(task, None)


# -- in pods


class Pods:
    """Containers of an RLRun as processes here: the operator's commands and environment, with addresses of here."""

    def __init__(self, folder: Path, s3: S3Server, storage: Storage, model: str, **change: Any) -> None:
        self.folder, self.storage = folder, storage
        run = rlrun(**{**TINY, "model": {"uri": model}, **change})
        plan = registry.reconcile(run, Observed(now=NOW, settings=OperatorSettings()))
        jobs = plan.children[-1]["spec"]["replicatedJobs"]
        self.pods = {each["name"]: each["template"]["spec"]["template"]["spec"] for each in jobs}
        settings = storage.settings
        ports = {port: free_port() for port in (8700, 8701, 8710, 8720)}
        self._ports = {str(port): str(free) for port, free in ports.items()}
        self._known = {
            "PINNACE_S3_ENDPOINT": s3.endpoint, "PINNACE_S3_BUCKET": settings.bucket, "PINNACE_S3_PREFIX": "",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "PINNACE_RL_KEY": "secret",
            "PINNACE_RL_COORDINATOR": f"http://127.0.0.1:{ports[8700]}", "PINNACE_RL_PROXY": f"http://127.0.0.1:{ports[8701]}",
            "PINNACE_RL_SERVERS": f"http://127.0.0.1:{ports[8710]}", "PINNACE_RL_MIRRORS": f"http://127.0.0.1:{ports[8720]}",
            "PINNACE_POD": "here", "PINNACE_ATTEMPT": "0", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, role: str, container: str) -> dict[str, str]:
        """What the operator gives to that container; whatever it does not give is not there."""
        env = {each["name"]: each.get("value", "") for each in self.container(role, container)["env"]}
        given = {name: self._known.get(name, value) for name, value in env.items() if name != "AWS_REGION"}
        log = {"PINNACE_TERMINATION_LOG": str(self.folder / f"{role}-{container}.json"), "OMP_NUM_THREADS": "1"}
        return {**given, **log, "PINNACE_SCRATCH": str(self.folder / role)}

    def container(self, role: str, name: str) -> Mapping[str, Any]:
        spec = self.pods[role]
        return next(each for each in [*spec["initContainers"], *spec["containers"]] if each["name"] == name)

    def command(self, role: str, container: str) -> list[str]:
        words = [
            str(word).replace("/scratch", str(self.folder / role))
            for word in self.container(role, container)["command"][1:]
        ]
        for port, free in self._ports.items():
            words = [word.replace(f"0.0.0.0:{port}", f"127.0.0.1:{free}") for word in words]
        return [sys.executable, "-m", "pinnace", *[str(free_port()) if word == "9090" else word for word in words]]

    def start(self, role: str, container: str) -> subprocess.Popen[bytes]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        with (self.folder / f"{role}-{container}.log").open("ab") as log:
            made = subprocess.Popen(
                self.command(role, container), env={**inherited, **self.environment(role, container)},
                stdout=log, stderr=log, cwd=Path(__file__).parents[2],
            )  # fmt: skip
        self.started[f"{role}-{container}"] = made
        return made

    def said(self, role: str, container: str) -> Outcome | None:
        path = self.folder / f"{role}-{container}.json"
        return Outcome.parse(path.read_text()) if path.exists() else None

    def log(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def end(self) -> None:
        for process in self.started.values():
            process.terminate()
        for process in self.started.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def pods(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pods]]:
    bucket = f"test-{secrets.token_hex(6)}"
    raw_client(s3.endpoint).create_bucket(Bucket=bucket)
    for name, value in {
        "PINNACE_S3_ENDPOINT": s3.endpoint, "PINNACE_S3_BUCKET": bucket, "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    storage = Storage.from_env()
    write_tiny_model(tmp_path / "tiny")
    model = storage.publish(tmp_path / "tiny", storage.settings.root / "models/tiny").uri
    made: list[Pods] = []

    def make(**change: Any) -> Pods:
        folder = tmp_path / f"run-{len(made)}"
        folder.mkdir()
        made.append(Pods(folder, s3, storage, model, **change))
        return made[-1]

    yield make
    for each in made:
        each.end()


def _prepare(pods: Pods, role: str, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    for name, value in pods.environment(role, rl.PREPARE).items():
        monkeypatch.setenv(name, value)
    prepare.prepare(role)
    return RunConfig.read(pods.folder / role / "run.json")


def test_each_role_fetches_what_it_needs(pods: Callable[..., Pods], monkeypatch: pytest.MonkeyPatch) -> None:
    made = pods()
    for role in ("trainer", "rollout", "sampler", "coordinator", "proxy"):
        config = _prepare(made, role, monkeypatch)
        assert len(config.read_tasks()) == 7
        assert (config.model / "model.safetensors").exists() == (role == "trainer"), (
            "the reference server reads no weights"
        )
        assert config.storage is not None
        assert config.storage.endswith("team/rlrun/job/0a1b2c3d")


@pytest.mark.parametrize(
    ("change", "role", "error", "says"),
    [
        ({"contextTokens": 8192, "turnTokens": 64}, "coordinator", InvalidSpec, "has 4096: lower contextTokens"),
        ({"tasks": {"builtin": {"name": "chess"}}}, "proxy", InvalidSpec, "use arithmetic-tools"),
        ({"tasks": {"configMap": {"name": "mine", "key": "t"}}}, "proxy", InvalidSpec, "'mine' has no key 't'"),
        ({"tasks": {"uri": "s3://BUCKET/nothing"}}, "proxy", InvalidData, "there is no .jsonl file"),
        ({"reward": {"function": "nobody.knows:it"}}, "sampler", InvalidSpec, "importable by the sampler"),
    ],
)  # fmt: skip
def test_what_can_not_work_is_said_before_anything_expensive_starts(
    pods: Callable[..., Pods],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    role: str,
    error: type[Exception],
    says: str,
) -> None:
    change = json.loads(json.dumps(change).replace("BUCKET", os.environ["PINNACE_S3_BUCKET"]))
    with pytest.raises(error, match=says):
        _prepare(pods(**change), role, monkeypatch)


def test_a_run_trains_in_the_containers_that_the_operator_makes(pods: Callable[..., Pods]) -> None:
    """Weights go by S3 and the mirror beside the server; every process has its own container's environment."""
    made = pods(agent={"function": "tests.rl.players:two_turns", "attemptSeconds": 120})
    for preparing in [made.start(role, rl.PREPARE) for role in made.pods]:
        assert preparing.wait(300) == 0, made.log()
    for role, container in (("coordinator", "coordinator"), ("rollout", "mirror"), ("rollout", "rollout"),
                            ("proxy", "proxy"), ("sampler", "sampler"), ("trainer", "trainer")):  # fmt: skip
        made.start(role, container)
    trainer = made.started["trainer-trainer"]
    deadline = time.monotonic() + 900
    while trainer.poll() is None and time.monotonic() < deadline:
        time.sleep(1)
    assert trainer.poll() == 0, made.log()
    done = made.said("trainer", "trainer")
    assert done is not None
    assert (done.step, done.output is not None) == (2, True)
    assert made.started["sampler-sampler"].wait(60) == 0, "samplers end by themselves when the run is finished"
    run = made.storage.run("team/rlrun/job/0a1b2c3d")
    assert run.checkpoints.newest().step == 2  # type: ignore[union-attr]  # there is one
    assert done.output is not None
    made.storage.fetch(done.output.uri, made.folder / "output", done.output.digest)
    assert (made.folder / "output" / "model.safetensors").exists()
