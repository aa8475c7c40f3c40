"""From an RLRun to what its processes read, and a run whose processes are started as the operator's pods start them."""

from __future__ import annotations

import inspect
import json
import shutil
import time
from collections.abc import Callable, Iterator
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
from pinnace.tiny.model import write_tiny_model
from pinnace_operator.api import rlagent, rlsignal
from pinnace_operator.api.evalagent import Dialect
from pinnace_operator.api.outcome import ExitCode
from pinnace_operator.api.rlrun import RLRun, RLRunSpec
from pinnace_operator.builders import rl

from e2e.s3 import S3Server
from e2e.simulation.rlrun import rlrun

from .pods import RUN_PATH, TINY, Pods, stored

SAMPLES = Path(__file__).parents[2] / "crds" / "samples"
HERE = Place(
    "s3://b/ns/rlrun/r/1", "http://c:1", "http://p:2", ("http://a:1", "http://b:1"), ("http://a:2", "http://b:2")
)


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


@pytest.fixture
def pods(s3: S3Server, tmp_path: Path) -> Iterator[Callable[..., Pods]]:
    write_tiny_model(tmp_path / "tiny")
    storage, model = stored(s3, tmp_path / "tiny")
    made: list[Pods] = []

    def make(**change: Any) -> Pods:
        folder = tmp_path / f"run-{len(made)}"
        folder.mkdir()
        change = json.loads(json.dumps(change).replace("BUCKET", storage.settings.bucket))
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
        assert config.storage.endswith(RUN_PATH)


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
    with pytest.raises(error, match=says):
        _prepare(pods(**change), role, monkeypatch)


def test_a_run_trains_in_the_containers_that_the_operator_makes(pods: Callable[..., Pods]) -> None:
    """Weights go by S3 and the mirror beside the server; every process has its own container's environment."""
    made = pods(agent={"function": "tests.rl.players:two_turns", "attemptSeconds": 120})
    made.prepare()
    made.start_all()
    assert made.ended("trainer", 900) == 0, made.log()
    done = made.said("trainer")
    assert done is not None
    assert done.step == 2
    assert made.ended("sampler", 60) == ExitCode.CHECKPOINTED, "samplers end by themselves when the run is finished"
    assert made.storage.run(RUN_PATH).checkpoints.newest().step == 2  # type: ignore[union-attr]  # there is one
    assert done.output is not None
    made.storage.fetch(done.output.uri, made.folder / "output", done.output.digest)
    assert (made.folder / "output" / "model.safetensors").exists()
    assert metrics(made) == [1, 2]
    assert history(made, "reward.svg").startswith(b"<svg")


def history(made: Pods, name: str) -> bytes:
    with made.storage.open(made.storage.settings.root / RUN_PATH / "history" / name) as stored:
        return stored.read()


def metrics(made: Pods) -> list[int]:
    return [json.loads(line)["step"] for line in history(made, "metrics.jsonl").splitlines()]


def test_a_run_whose_pods_are_all_stopped_at_once_loses_no_step(pods: Callable[..., Pods]) -> None:
    """As `suspend` does it: nobody is left to tell the trainer anything, and later all start on new disks."""
    made = pods(
        agent={"function": "tests.rl.players:two_turns", "attemptSeconds": 120}, steps=9,
        checkpoint={"everySteps": 100},
    )  # fmt: skip
    made.prepare()
    made.start_all()
    lines = made.folder / "trainer/run/metrics.jsonl"
    deadline = time.monotonic() + 600
    while not (lines.exists() and lines.read_text().count("\n") >= 2):
        assert time.monotonic() < deadline, made.log()
        time.sleep(0.2)
    for process in made.started.values():
        process.terminate()
    assert {role: made.ended(role, 60) for role in made.pods} == dict.fromkeys(made.pods, ExitCode.CHECKPOINTED), (
        f"a Job would take 0 for the end of its work, and anything else for a failure:\n{made.log()}"
    )
    saved = made.storage.run(RUN_PATH).checkpoints.newest()
    assert saved is not None
    assert metrics(made) == list(range(1, saved.step + 1))
    made.end()
    for role in made.pods:
        shutil.rmtree(made.folder / role)
        (made.folder / role).mkdir()
    made.prepare()
    made.start_all()
    assert made.ended("trainer", 600) == 0, made.log()
    assert metrics(made) == list(range(1, 10))
