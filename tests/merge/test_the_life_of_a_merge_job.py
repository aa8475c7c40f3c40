"""Whole worker pods against a real S3: merged, killed, stopped, told that their input changed; and sweeps."""

from __future__ import annotations

import json
import signal
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from pinnace.storage import Storage
from safetensors.torch import load_file

from tests.merge.pods import Cluster

pytestmark = pytest.mark.slow
BUILTIN = {"builtin": {"name": "arithmetic-tools", "samples": 6, "seed": 1}}
VALUES = ["0", "0.5"]


@pytest.fixture(scope="module")
def cluster(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster(s3, tmp_path_factory.mktemp("merge-jobs"))


def swept(cluster: Cluster, name: str, **sweep: Any) -> dict[str, Any]:
    metric = {"special": BUILTIN, "general": {"builtin": {**BUILTIN["builtin"], "seed": 2}}, "specialWeight": "0.7"}
    return cluster.job(
        name,
        sweep={"axes": [{"parameter": "weight", "values": VALUES}], "metric": metric, **sweep},
        worker={"resources": {"limits": {"memory": "4Gi"}}},
    )


@pytest.fixture(scope="module")
def merged(cluster: Cluster) -> dict[str, Any]:
    job = cluster.job("merged")
    return {"job": job, "outcome": cluster.run(job)}


@pytest.fixture(scope="module")
def sweep(cluster: Cluster) -> dict[str, Any]:
    job = swept(cluster, "swept")
    return {"job": job, "outcome": cluster.run(job)}


def test_a_finished_job_leaves_a_model_with_its_description(
    cluster: Cluster, merged: dict[str, Any], tmp_path: Path
) -> None:
    run, outcome = cluster.directory(merged["job"]), merged["outcome"]
    assert outcome["reason"] == "Completed"
    assert outcome["output"]["digest"] == run.published().digest
    artifact = cluster.storage.show(run.output)
    assert {(each.ref, each.uri) for each in artifact.description.lineage} == {
        ("base", cluster.uri("models/base")), ("agent", cluster.uri("models/agent")),
    }  # fmt: skip
    assert all(each.digest for each in artifact.description.lineage)
    cluster.storage.fetch(run.output, tmp_path)
    base, agent = (load_file(cluster.folder / name / "model.safetensors") for name in ("base", "agent"))
    ours = load_file(tmp_path / "model.safetensors")
    assert ours.keys() == base.keys()
    assert all(ours[name].allclose((base[name] + agent[name]) / 2, atol=1e-6) for name in base)


def test_the_last_words_have_plan_and_digests(cluster: Cluster, merged: dict[str, Any]) -> None:
    told = merged["outcome"]["merge"]
    files = cluster.storage.show(cluster.directory(merged["job"]).output).manifest.files
    weights = next(each for each in files if each.path == "model.safetensors")
    assert told["files"] == [{"name": "model.safetensors", "bytes": weights.size, "digest": f"sha256:{weights.sha256}"}]
    assert told["plan"]["outputBytes"] == weights.size
    assert told["plan"]["inputBytes"] > weights.size


def test_a_job_killed_at_every_third_write_ends_like_one_that_was_left_alone(
    cluster: Cluster, merged: dict[str, Any], killed: Any
) -> None:
    job = cluster.job("killed")
    kills = 0
    for die_at in range(3, 40, 3):
        pod = cluster.start(job, die_at=die_at)
        code = pod.wait()
        if code != -signal.SIGKILL:
            break
        kills += 1
    assert (code, kills >= 3) == (0, True), pod.log.read_text()[-3000:]
    assert pod.outcome["output"]["digest"] == merged["outcome"]["output"]["digest"]
    assert not any("merge-state" in name for name in cluster.names(job))
    killed("a job's pod, at every third write", kills, "same digest")


def test_a_pod_that_finds_the_output_finished_says_so(cluster: Cluster, merged: dict[str, Any]) -> None:
    assert cluster.run(merged["job"]) == merged["outcome"]


def test_an_input_that_is_not_what_the_operator_resolved_is_refused(cluster: Cluster) -> None:
    digest = "sha256:" + "1" * 64
    job = cluster.job("changed", digests={"models.agent": digest})
    outcome = cluster.run(job, code=78)
    assert outcome["reason"] == "ModelUnusable"
    assert f"spec.models.agent: {cluster.uri('models/agent')} was {digest}" in outcome["message"]
    assert cluster.names(job) == []


def test_models_that_do_not_fit_are_refused_before_the_first_byte(cluster: Cluster) -> None:
    folder = cluster.folder / "wide"
    cluster.publish("wide", 3)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    cluster.storage.publish(folder, cluster.uri("models/wide"))
    wide = {"name": "wide", "source": {"uri": cluster.uri("models/wide")}, "weight": "1"}
    job = cluster.job("mismatch", models=[wide])
    outcome = cluster.run(job, code=78)
    assert "LlamaForCausalLM" in outcome["message"]
    assert cluster.names(job) == []


@pytest.mark.parametrize(
    ("name", "spec", "code", "says"),
    [
        ("nowhere", {"base": {"uri": "s3://merge-jobs/models/nobody"}}, 78, "nothing is stored there"),
        ("parameter", {"layers": [{"parameter": "density", "values": ["1"]}]}, 64, "taskArithmetic has no number"),
        ("zero", {"method": {"linear": {}}, "models": "zero"}, 64, "sum to 0"),
    ],
)
def test_what_can_not_work_is_a_typed_failure(
    cluster: Cluster, name: str, spec: dict[str, Any], code: int, says: str
) -> None:
    if spec.get("models") == "zero":
        agent = {"uri": cluster.uri("models/agent")}
        models = [{"name": str(weight).strip("-"), "source": agent, "weight": str(weight)} for weight in (1, -1)]
        spec = {**spec, "models": [models[0], {**models[1], "name": "other"}]}
    job = cluster.job(f"bad-{name}", **spec)
    assert says in cluster.run(job, code=code)["message"]
    assert cluster.names(job) == []


def test_a_sweep_publishes_the_candidate_with_the_lowest_loss(cluster: Cluster, sweep: dict[str, Any]) -> None:
    told, names = sweep["outcome"]["merge"]["sweep"], cluster.names(sweep["job"])
    assert (told["candidates"], told["scored"]) == (2, 2)
    assert [row["values"] for row in told["rows"]] == [[value] for value in VALUES]
    for row in told["rows"]:
        total = 0.7 * float(row["special"]) + 0.3 * float(row["general"])
        assert float(row["total"]) == pytest.approx(total, rel=1e-4)
    best = min(told["rows"], key=lambda row: float(row["total"]))
    assert told["winner"] == best["candidate"]
    single = cluster.run(cluster.job("single", layers=[{"parameter": "weight", "values": best["values"]}]))
    assert single["merge"]["files"] == sweep["outcome"]["merge"]["files"]
    assert not any(name.startswith("candidates/") for name in names)
    with cluster.storage.open(told["plot"]) as stream:
        assert ET.fromstring(stream.read()).tag.endswith("svg")  # noqa: S314 - made by ourselves


def test_losses_are_what_transformers_computes(cluster: Cluster, sweep: dict[str, Any], tmp_path: Path) -> None:
    """Weight 0 is the base itself, scored here by the model's own loss."""
    import torch
    from pinnace.chat import ChatTokenizer, Renderer, parse_conversation
    from pinnace.tiny.task import arithmetic_tools
    from transformers import AutoModelForCausalLM

    folder = cluster.folder / "base"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    renderer = Renderer(ChatTokenizer.from_directory(folder))
    loss, tokens = 0.0, 0
    for value in arithmetic_tools(6, 1):
        for sample in renderer.samples(parse_conversation(value)):
            ids, labels = torch.tensor([sample.input_ids]), torch.tensor([sample.labels])
            count = int((labels[:, 1:] >= 0).sum())
            with torch.inference_mode():
                loss += float(model(input_ids=ids, labels=labels).loss) * count
            tokens += count
    row = sweep["outcome"]["merge"]["sweep"]["rows"][0]
    assert float(row["special"]) == pytest.approx(loss / tokens, rel=1e-4)


def test_a_sweep_goes_on_where_it_was_killed(cluster: Cluster, sweep: dict[str, Any], killed: Any) -> None:
    job = swept(cluster, "swept-killed")
    kills = 0
    for die_at in (9, 16):
        pod = cluster.start(job, die_at=die_at)
        kills += pod.wait() == -signal.SIGKILL
    assert kills == 2
    before = _scores(cluster.storage, job, cluster)
    outcome = cluster.run(job)
    assert before
    assert outcome["output"]["digest"] == sweep["outcome"]["output"]["digest"]
    assert outcome["merge"]["sweep"]["rows"] == sweep["outcome"]["merge"]["sweep"]["rows"]
    after = _scores(cluster.storage, job, cluster)
    assert {name: after[name] for name in before} == before  # not scored a second time
    killed("a sweep", kills, "same digest, no score computed twice")


def _scores(storage: Storage, job: dict[str, Any], cluster: Cluster) -> dict[str, str]:
    """Scores in S3 with the tag of what was written."""
    folder = cluster.directory(job).history / "scores"
    return {str(each.uri): each.tag for each in storage.list(folder)}


def test_a_sweep_that_is_asked_to_stop_ends_as_checkpointed_and_keeps_its_scores(cluster: Cluster) -> None:
    job = swept(cluster, "swept-stopped")
    pod = cluster.start(job)
    deadline = time.monotonic() + 800
    while not _scores(cluster.storage, job, cluster):
        assert pod.process.poll() is None, pod.log.read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait() == 85, pod.log.read_text()[-3000:]
    assert pod.outcome["reason"] == "Checkpointed"
    assert _scores(cluster.storage, job, cluster)


def test_all_candidates_stay_if_wanted(cluster: Cluster, tmp_path: Path) -> None:
    job = swept(cluster, "swept-kept", retain="All", axes=[{"parameter": "weight", "values": ["1", "0.5"]}])
    outcome = cluster.run(job)
    for number in range(2):
        assert f"candidates/candidate-{number:03d}/manifest.json" in cluster.names(job)
    winner = cluster.directory(job).uri / "candidates" / outcome["merge"]["sweep"]["winner"]
    assert cluster.storage.published(winner).digest == outcome["output"]["digest"]


def judged(cluster: Cluster, name: str, **sweep: Any) -> dict[str, Any]:
    template = {"engine": {"vllm": {"device": "cpu"}}, "benchmarks": [{"name": "gaia"}, {"name": "scout"}]}
    axes = [{"parameter": "weight", "values": VALUES}]
    return cluster.job(name, sweep={"axes": axes, "evalSuiteTemplate": template, **sweep})


def with_scores(told: dict[str, Any]) -> str:
    """What the operator hands over when the suites have found the second candidate better."""
    rows = [
        {"candidate": f"candidate-{number:03d}", "values": [value], "score": f"{25 + 50 * number}.00",
         "benchmarks": [{"name": "gaia", "score": "50.0"}, {"name": "scout", "score": f"{100 * number}.0"}]}
        for number, value in enumerate(VALUES)
    ]  # fmt: skip
    return json.dumps({**told, "scored": 2, "rows": rows, "winner": "candidate-001"})


def test_candidates_wait_for_their_suites_and_the_winner_is_published_as_it_was_evaluated(cluster: Cluster) -> None:
    job = judged(cluster, "judged")
    first = cluster.run(job)
    folder = cluster.directory(job).uri / "candidates"
    assert first["merge"]["sweep"] == {"candidates": 2, "scored": 0, "rows": [], "folder": str(folder)}
    assert ("output" in first, first["merge"]["plan"]["files"]) == (False, 1)
    evaluated = cluster.storage.show(folder / "candidate-001")
    assert evaluated.description
    assert {each.ref for each in evaluated.description.lineage} == {"base", "agent"}
    pod = cluster.start(job, die_at=4, PINNACE_SWEEP=with_scores(first["merge"]["sweep"]))
    assert pod.wait() == -signal.SIGKILL
    pod = cluster.start(job, PINNACE_SWEEP=with_scores(first["merge"]["sweep"]))
    assert pod.wait() == 0, pod.log.read_text()[-3000:]
    told = pod.outcome
    assert told["output"] == {"uri": str(cluster.directory(job).output), "digest": evaluated.digest}
    assert told["merge"]["plan"] == first["merge"]["plan"]
    assert told["merge"]["sweep"]["winner"] == "candidate-001"
    assert not any(name.startswith("candidates/") for name in cluster.names(job))
    with cluster.storage.open(told["merge"]["sweep"]["plot"]) as stream:
        words = {each.text for each in ET.fromstring(stream.read()).iter()}  # noqa: S314 - made by ourselves
    assert {"gaia", "scout", "mean", "best"} <= words


def test_a_pod_that_merges_candidates_goes_on_after_kills(cluster: Cluster) -> None:
    job = judged(cluster, "judged-killed")
    assert cluster.start(job, die_at=6).wait() == -signal.SIGKILL
    assert cluster.run(job)["merge"]["sweep"]["folder"]
    numbers = [f"candidates/candidate-{number:03d}/manifest.json" for number in range(2)]
    assert set(numbers) <= set(cluster.names(job))


def test_a_winner_that_was_damaged_is_not_published(cluster: Cluster) -> None:
    job = judged(cluster, "judged-damaged")
    table = with_scores(cluster.run(job)["merge"]["sweep"])
    weights = cluster.directory(job).uri / "candidates" / "candidate-001" / "model.safetensors"
    body = bytearray(cluster.storage.store.read(weights))
    body[-1] ^= 1
    cluster.storage.store.put(weights, bytes(body))
    pod = cluster.start(job, PINNACE_SWEEP=table)
    assert pod.wait() != 0
    assert "model.safetensors" in pod.outcome["message"]
    assert not any(name.startswith("output/") and name.endswith(".safetensors") for name in cluster.names(job))


@pytest.mark.parametrize(
    ("name", "special", "code", "reason", "says"),
    [
        ("unknown", {"builtin": {"name": "nothing"}}, 65, "InvalidData", "no built-in task 'nothing'"),
        ("absent", {"uri": "s3://merge-jobs/data/none"}, 65, "InvalidData", "sweep.metric.special"),
        ("broken", {"uri": "s3://merge-jobs/data/broken.jsonl"}, 65, "InvalidData", "broken.jsonl:2"),
    ],
)
def test_bad_held_out_data_is_found_before_anything_is_merged(
    cluster: Cluster, name: str, special: dict[str, Any], code: int, reason: str, says: str
) -> None:
    good = {"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]}
    cluster.storage.write(cluster.uri("data/broken.jsonl"), f"{json.dumps(good)}\n{{\n".encode())
    job = swept(cluster, f"data-{name}", metric={"special": special, "general": BUILTIN})
    outcome = cluster.run(job, code=code)
    assert (outcome["reason"], says in outcome["message"]) == (reason, True), outcome["message"]
    assert cluster.names(job) == []
