"""The JobSets that are built: what a real API server says about them and their pods, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pinnace_operator.reconcile.plan import OperatorSettings, StorageDefaults

from e2e.apiserver import ApiServer
from e2e.faults.api import JOBSETS, PODS, Api
from e2e.faults.cluster import Hands, install_crds
from e2e.simulation.decide import decide
from e2e.simulation.objects import Object, jobset, mergejob, sftjob, started

SAMPLES = Path(__file__).parents[2] / "crds" / "samples"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
SETTINGS = OperatorSettings(
    image_registry="registry.example.com", image_tag="1.2.3", progress_url="https://op:8443", progress_ca="PEM",
    storage=StorageDefaults(bucket="everyone"),
)  # fmt: skip
LOADED: dict[str, Any] = {
    "data": {
        "train": {"configMap": {"name": "data", "key": "train.jsonl"}},
        "chatTemplate": {"name": "chat", "key": "t.jinja"},
    },
    "storage": {"endpoint": "https://s3.example.com", "secretName": "mine"},
    "tracking": {"wandb": {"project": "p", "secretName": "wandb"}},
    "queueName": "q",
    "trainer": {
        "device": "cuda", "processesPerNode": 8, "image": "me/mine:1",
        "resources": {"limits": {"nvidia.com/gpu": 8, "memory": "64Gi"}},
        "podTemplate": {
            "labels": {"team": "a"}, "annotations": {"note": "b"}, "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}], "priorityClassName": "high",
            "imagePullSecrets": [{"name": "login"}], "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
            "resourceClaims": [{"name": "net", "resourceClaimTemplateName": "rdma"}],
            "terminationGracePeriodSeconds": 300, "runtimeClassName": "nvidia", "schedulerName": "mine",
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]}}},
        },
    },
    "training": {"globalBatchSize": 8},
}  # fmt: skip


MAKE = {"SFTJob": sftjob, "MergeJob": mergejob}


def built(job: Object) -> Object:
    (child,) = decide(job, settings=SETTINGS, upstreams={}).children
    return dict(child)


def pod_spec(child: Object) -> Object:
    found: Object = child["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return found


def environment(child: Object, container: str = "containers") -> dict[str, Object]:
    return {each["name"]: each for each in pod_spec(child)[container][0]["env"]}


def _samples() -> list[Object]:
    found = [each for path in sorted(SAMPLES.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    jobs = [each for each in found if each and each["kind"] in MAKE and "'from'" not in str(each["spec"])]
    return [MAKE[each["kind"]](each["metadata"]["name"], **each["spec"]) for each in jobs]


MERGE: dict[str, Any] = {
    "sweep": {
        "axes": [{"parameter": "lambda", "values": ["0.5", "1"]}],
        "metric": {
            "special": {"configMap": {"name": "data", "key": "special.jsonl"}},
            "general": {"builtin": {"name": "arithmetic-tools"}},
        },
    },
    "worker": {"resources": {"limits": {"memory": "4Gi", "cpu": 3}}},
}
CHILDREN = [
    built(job) for job in [*_samples(), sftjob("loaded", **LOADED), mergejob("merge"), mergejob("sweep", **MERGE)]
]
DYING = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["pinnace.dev/delete-artifacts"]}
CHILDREN.append(
    built(
        sftjob(
            "cleanup",
            deletionPolicy="Delete",
            meta=DYING,
            status=started(),
            **{k: LOADED[k] for k in ("trainer", "training")},
        )
    )
)


@pytest.fixture(scope="module")
def hands(apiserver: ApiServer) -> Hands:
    api = Api(apiserver.kubeconfig)
    install_crds(api)
    found = Hands(api, "jobsets")
    found.create_namespace()
    return found


@pytest.mark.parametrize("child", CHILDREN, ids=lambda child: child["metadata"]["name"])
def test_the_api_server_accepts_it_its_job_and_its_pods(hands: Hands, child: Object) -> None:
    meta = {**child["metadata"], "namespace": hands.namespace}
    stored = hands.api.apply(f"{JOBSETS.format(hands.namespace)}/{meta['name']}", {**child, "metadata": meta})
    sent, kept = child["spec"], stored["spec"]
    assert kept["failurePolicy"]["rules"] == sent["failurePolicy"]["rules"]
    assert "suspend" not in kept
    template = sent["replicatedJobs"][0]["template"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": meta["name"]}, **template}
    hands.api.create(JOBS.format(hands.namespace) + "?dryRun=All", {**job, "metadata": {"name": meta["name"]}})
    pod_template = template["spec"]["template"]
    # The runtime class, the priority class and the tokens of service accounts are no part of a bare API server.
    spec = {
        name: value
        for name, value in pod_template["spec"].items()
        if name not in ("runtimeClassName", "priorityClassName")
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": meta["name"]},
        "spec": {**spec, "serviceAccountName": "default"},
    }
    created = hands.api.create(PODS.format(hands.namespace) + "?dryRun=All", pod)
    # Nothing was pruned as unknown: all that was sent is there.
    assert _within(spec["containers"][0], created["spec"]["containers"][0])


def _within(sent: Any, kept: Any) -> bool:
    if isinstance(sent, dict):
        return all(name in kept and _within(value, kept[name]) for name, value in sent.items() if value not in ({}, []))
    if isinstance(sent, list):
        return len(sent) == len(kept) and all(map(_within, sent, kept))
    return str(sent) == str(kept)


@pytest.mark.parametrize("child", CHILDREN, ids=lambda child: child["metadata"]["name"])
def test_every_pod_is_hardened(child: Object) -> None:
    spec = pod_spec(child)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in [*spec["containers"], *spec["initContainers"]]:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
        }  # fmt: skip
    tokens = [each["projected"]["sources"][0]["serviceAccountToken"] for each in spec["volumes"] if "projected" in each]
    assert [each["audience"] for each in tokens] == ["pinnace"]
    assert not any("hostPath" in each for each in spec["volumes"])


def test_the_gang_is_one_indexed_job_that_fails_as_a_whole() -> None:
    child = built(sftjob(trainer={"device": "cpu", "nodes": 3}, training={"globalBatchSize": 3}, backoffLimit=7))
    (replicated,) = child["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert (replicated["replicas"], job["completionMode"], job["parallelism"], job["completions"]) == (
        1,
        "Indexed",
        3,
        3,
    )
    assert (job["backoffLimit"], job["podReplacementPolicy"]) == (0, "Failed")
    assert child["spec"]["failurePolicy"]["maxRestarts"] == 7


def test_a_merge_has_one_worker_whose_memory_follows_from_its_limit() -> None:
    (container,) = pod_spec(built(mergejob(memoryLimit="4Gi")))["containers"]
    assert container["command"] == ["pinnace", "merge", "run"]
    assert container["image"] == "registry.example.com/pinnace/trainer:1.2.3-cpu"
    assert container["resources"] == {"requests": {"cpu": "2"}, "limits": {"memory": "5120Mi"}}
    child = built(mergejob())
    assert (child["spec"]["replicatedJobs"][0]["name"], environment(child)["OMP_NUM_THREADS"]["value"]) == (
        "worker",
        "2",
    )
    job = json.loads(environment(child)["PINNACE_JOB"]["value"])
    assert job["runPath"] == "team/mergejob/job/0a1b2c3d"
    assert job["resolved"] == {
        "base": {"uri": "s3://pinnace/models/tiny"}, "models.agent": {"uri": "s3://pinnace/models/agent"},
    }  # fmt: skip


def test_a_sweep_has_what_the_user_gave_and_its_data() -> None:
    child = built(mergejob(**MERGE))
    (container,) = pod_spec(child)["containers"]
    assert container["resources"] == {"limits": {"memory": "4Gi", "cpu": 3}}
    assert environment(child)["OMP_NUM_THREADS"]["value"] == "3"
    assert "/etc/pinnace/data" in {each["mountPath"] for each in container["volumeMounts"]}


def test_containers_know_what_the_contract_says() -> None:
    child = built(sftjob())
    spec = pod_spec(child)
    assert [each["command"] for each in spec["initContainers"]] == [["pinnace", "sft", "preflight"]]
    assert [each["command"] for each in spec["containers"]] == [["pinnace", "sft", "train"]]
    assert environment(child) == environment(child, "initContainers")
    assert spec["containers"][0]["image"] == "registry.example.com/pinnace/trainer:1.2.3-cpu"
    env = environment(child)
    job = json.loads(env["PINNACE_JOB"]["value"])
    assert job["runPath"] == "team/sftjob/job/0a1b2c3d"
    assert job["resolved"] == {"model": {"uri": "s3://pinnace/models/tiny"}}
    assert (job["spec"]["training"]["learningRate"], job["spec"]["backoffLimit"]) == ("2e-5", 3)
    assert (env["PINNACE_PROGRESS_URL"]["value"], env["PINNACE_PROGRESS_CA"]["value"]) == ("https://op:8443", "PEM")
    secret = env["PINNACE_S3_BUCKET"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "pinnace-storage", "key": "bucket", "optional": True}
    assert env["PINNACE_S3_DEFAULT_BUCKET"]["value"] == "everyone"
    assert "PINNACE_S3_DEFAULT_ENDPOINT" not in env
    mounts = {each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
    assert mounts == {"/scratch", "/tmp", "/dev/shm", "/var/run/secrets/pinnace"}


def test_what_the_user_asked_for_is_in_the_pods() -> None:
    child = built(sftjob("loaded", **LOADED))
    spec, env = pod_spec(child), environment(child)
    assert child["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    assert spec["containers"][0]["image"] == "me/mine:1"
    assert env["PINNACE_S3_ENDPOINT"]["value"] == "https://s3.example.com"
    assert env["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"]["name"] == "mine"
    assert env["WANDB_API_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "wandb", "key": "apiKey"}
    assert env["NCCL_DEBUG"]["value"] == "INFO"
    assert (spec["nodeSelector"], spec["terminationGracePeriodSeconds"]) == ({"disk": "ssd"}, 300)
    assert spec["containers"][0]["resources"]["claims"] == [{"name": "net"}]
    assert "nvidia.com/gpu" not in spec["initContainers"][0]["resources"]["limits"]
    mounts = {each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
    assert {"/etc/pinnace/data", "/etc/pinnace/chat"} <= mounts
    labels = child["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["metadata"]["labels"]
    assert (labels["team"], labels["pinnace.dev/uid"]) == ("a", sftjob()["metadata"]["uid"])


@pytest.mark.parametrize(
    ("limits", "processes", "threads"),
    [({"cpu": 4}, 1, "4"), ({"cpu": "3500m"}, 2, "1"), ({"cpu": "500m"}, 1, "1"), ({}, 1, None)],
)
def test_cpu_trainers_share_the_cores(limits: Object, processes: int, threads: str | None) -> None:
    role = {"device": "cpu", "processesPerNode": processes, "resources": {"limits": limits}}
    env = environment(built(sftjob(trainer=role, training={"globalBatchSize": processes})))
    assert env.get("OMP_NUM_THREADS", {}).get("value") == threads


def test_attempts_and_failures_are_counted_on_over_jobsets() -> None:
    child = built(sftjob(backoffLimit=5, status=started(attempt=6, restarts=2)))
    annotations = child["metadata"]["annotations"]
    assert annotations == {"pinnace.dev/first-attempt": "7", "pinnace.dev/restarts-before": "2"}
    assert child["spec"]["failurePolicy"]["maxRestarts"] == 3
    assert json.loads(environment(child)["PINNACE_JOB"]["value"])["firstAttempt"] == 7
    running = decide(
        sftjob(status=started(attempt=7, restarts=2)),
        jobset=jobset(first_attempt=7, restarts_before=2, restarts=3, counted=1),
    )
    assert (running.status["attempt"], running.status["restarts"]) == (10, 3)


@pytest.mark.parametrize(("checkpoint", "resolved"), [
    (None, {"uri": "s3://bucket/ns/sftjob/first/1/output", "digest": "sha256:" + "0" * 64}),
    ("latest", {"uri": "s3://bucket/ns/sftjob/first/1/checkpoints/step-00000080/model"}),
    ("40", {"uri": "s3://bucket/ns/sftjob/first/1/checkpoints/step-00000040/model"}),
    ("best", {"uri": "s3://bucket/ns/sftjob/first/1/checkpoints", "checkpoint": "best"}),
])  # fmt: skip
def test_pods_are_told_where_the_other_jobs_model_is(checkpoint: str | None, resolved: Object) -> None:
    run, digest = "s3://bucket/ns/sftjob/first/1", "sha256:" + "0" * 64
    status = started(
        {"type": "Complete", "status": "True", "reason": "Completed", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        output={"uri": f"{run}/output", "digest": digest},
        checkpoint={
            "step": 80,
            "uri": f"{run}/checkpoints/step-00000080",
            "digest": digest,
            "time": "2026-01-01T00:00:00Z",
        },
    )
    source = {"kind": "SFTJob", "name": "first", **({"checkpoint": checkpoint} if checkpoint else {})}
    upstream = {("SFTJob", "first"): sftjob("first", status=status)}
    first = decide(sftjob(model={"from": source}), upstreams=upstream)
    assert json.loads(environment(dict(first.children[0]))["PINNACE_JOB"]["value"])["resolved"]["model"] == resolved
    # Made anew later, it gets the same, though the other job is gone.
    again = decide(sftjob(model={"from": source}, status=dict(first.status)), upstreams={("SFTJob", "first"): None})
    assert json.loads(environment(dict(again.children[0]))["PINNACE_JOB"]["value"])["resolved"]["model"] == resolved
