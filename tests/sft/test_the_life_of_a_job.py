"""Whole trainer pods against a real S3: killed, stopped, resumed, spread over two pods, cut off from storage."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
STEPS = 16
LONG = {"training": {"maxSteps": STEPS, "globalBatchSize": 16, "microBatchSize": 1}, "checkpoint": {"everySteps": 4}}


@pytest.fixture(scope="module")
def uninterrupted(cluster: Any) -> dict[str, Any]:
    job = cluster.job("uninterrupted", **LONG, data={"evalPercent": 17})
    pod = cluster.start(job)
    assert pod.wait() == 0, pod.output.read_text()[-3000:]
    return {"job": job, "losses": cluster.history(job), "pod": pod}


def weights(cluster: Any, job: dict[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    cluster.storage.fetch(cluster.run_of(job).output, folder)
    return load_file(folder / "model.safetensors")


def test_a_finished_job_leaves_model_checkpoints_history_and_a_data_report(
    cluster: Any, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    run = cluster.run_of(uninterrupted["job"])
    assert uninterrupted["pod"].outcome["reason"] == "Completed"
    assert uninterrupted["pod"].outcome["output"]["digest"] == run.published().digest
    assert "lm_head.weight" not in weights(cluster, uninterrupted["job"], tmp_path)
    assert [checkpoint.step for checkpoint in run.checkpoints.all()] == [12, 16]
    assert sorted(uninterrupted["losses"]) == list(range(1, STEPS + 1))
    report = cluster.storage.open(run.history / "data-report.json").read().decode()
    assert '"records": 96' in report


def test_a_job_killed_and_stopped_ends_like_one_that_was_left_alone(
    cluster: Any, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    job = cluster.job("interrupted", **LONG, data={"evalPercent": 17})
    checkpoints = cluster.run_of(job).checkpoints

    killed = cluster.start(job)
    killed.until(lambda: (newest := checkpoints.newest()) is not None and newest.step >= 4)
    killed.workers()[0].kill()
    assert killed.wait() == 137
    assert "SIGKILL" in killed.outcome["message"]
    assert killed.outcome["logTail"]
    resumed_from = checkpoints.newest().step

    stopped = cluster.start(job, attempt=1)
    stopped.until(lambda: stopped.steps() >= 2)
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.wait() == 85
    assert stopped.outcome["reason"] == "Checkpointed"
    step = stopped.outcome["step"]
    assert step >= resumed_from + 2
    assert stopped.outcome["checkpoint"]["step"] == checkpoints.newest().step == step

    finished = cluster.start(job, attempt=2)
    assert finished.wait() == 0, finished.output.read_text()[-3000:]
    assert finished.steps() == STEPS - step
    # Same order of data, same arithmetic: equal to the last bit, not only close.
    assert cluster.history(job, attempt=2) == uninterrupted["losses"]
    ours, theirs = weights(cluster, job, tmp_path / "a"), weights(cluster, uninterrupted["job"], tmp_path / "b")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_pods_learn_what_one_learns(cluster: Any, uninterrupted: dict[str, Any]) -> None:
    from e2e.apiserver import free_port

    job = cluster.job("two-pods", **LONG, data={"evalPercent": 17}, trainer={"nodes": 2})
    meeting = {"PINNACE_MASTER_ADDR": "127.0.0.1", "PINNACE_MASTER_PORT": str(free_port())}
    pods = [cluster.start(job, node=node, **meeting) for node in (0, 1)]
    assert [pod.wait() for pod in pods] == [0, 0], pods[0].output.read_text()[-3000:]
    losses = cluster.history(job)
    assert losses == pytest.approx(uninterrupted["losses"], abs=1e-4)
    assert "output" in pods[0].outcome
    assert pods[1].outcome.get("output") is None
    newest = cluster.run_of(job).checkpoints.newest()
    assert {"parts/rank-00000.json", "parts/rank-00001.json"} <= {
        cluster.run_of(job).checkpoints.folder.relative(each.uri).partition("/")[2]
        for each in cluster.storage.list(newest.uri)
    }


def test_training_goes_on_while_storage_is_away_and_nothing_is_lost(fragile_cluster: Any) -> None:
    job = fragile_cluster.job("outage", **LONG)
    pod = fragile_cluster.start(job)
    pod.until(lambda: pod.steps() >= 1)
    fragile_cluster.server.stop()
    pod.until(lambda: pod.steps() >= 12)
    fragile_cluster.server.start()
    assert pod.wait() == 0, pod.output.read_text()[-3000:]
    assert [checkpoint.step for checkpoint in fragile_cluster.run_of(job).checkpoints.all()] == [12, 16]
    assert sorted(fragile_cluster.history(job)) == list(range(1, STEPS + 1))


def test_a_nan_loss_ends_the_job_with_step_and_remedy_and_saves_nothing(cluster: Any, tmp_path: Path) -> None:
    from pinnace.tiny.model import write_tiny_model
    from safetensors.torch import save_file

    write_tiny_model(tmp_path)
    broken = load_file(tmp_path / "model.safetensors")
    broken["model.norm.weight"][0] = float("nan")
    save_file(broken, tmp_path / "model.safetensors", metadata={"format": "pt"})
    cluster.storage.publish(tmp_path, cluster.uri("models/broken"))
    job = cluster.job("nan", checkpoint={"everySteps": 1})
    job["resolved"]["model"]["uri"] = cluster.uri("models/broken")
    pod = cluster.start(job)
    assert pod.wait() == 70
    assert pod.outcome["reason"] == "Diverged"
    assert "step 1" in pod.outcome["message"]
    assert "learningRate" in pod.outcome["message"]
    assert cluster.run_of(job).checkpoints.newest() is None
