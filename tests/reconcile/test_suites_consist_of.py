"""What is made for an EvalSuite: what a real API server says about it, who may talk to whom, what pods get."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pinnace_operator.reconcile.plan import OperatorSettings, StorageDefaults

from e2e.apiserver import ApiServer
from e2e.faults.api import JOBSETS, PODS, Api
from e2e.faults.cluster import Hands, install_crds
from e2e.simulation.decide import decide
from e2e.simulation.evalsuite import REPORT, evalsuite, toolsandbox
from e2e.simulation.objects import Object, condition, sftjob, started

SAMPLES = Path(__file__).parents[2] / "crds" / "samples"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"
SETTINGS = OperatorSettings(
    image_registry="registry.example.com", image_tag="1.2.3", progress_url="https://op:8443", progress_ca="PEM",
    storage=StorageDefaults(endpoint="http://s3:9000", bucket="everyone"),
)  # fmt: skip
DONE = {"type": "Complete", "status": "True", "reason": "Completed", "lastTransitionTime": "2026-01-01T00:00:00Z"}
UPSTREAMS = {
    ("ToolSandbox", "tools"): toolsandbox(),
    ("SFTJob", "sft-demo"): sftjob("sft-demo", status=started(DONE, output=REPORT)),
    ("MergeJob", "merge-demo"): {**sftjob("merge-demo", status=started(DONE, output=REPORT)), "kind": "MergeJob"},
    ("EvalSuite", "eval-base"): evalsuite("eval-base", status=started(condition("Complete"), output=REPORT)),
}


def made(suite: Object) -> tuple[dict[str, Object], Object]:
    """(NetworkPolicies by role, JobSet)."""
    *policies, jobset = decide(suite, settings=SETTINGS, upstreams=UPSTREAMS).children
    return {each["metadata"]["labels"]["pinnace.dev/role"]: dict(each) for each in policies}, dict(jobset)


def roles(jobset: Object) -> dict[str, Object]:
    return {each["name"]: each for each in jobset["spec"]["replicatedJobs"]}


def pod_of(jobset: Object, role: str) -> Object:
    found: Object = roles(jobset)[role]["template"]["spec"]["template"]["spec"]
    return found


def environment(container: Object) -> dict[str, Object]:
    return {each["name"]: each for each in container["env"]}


def _samples() -> list[Object]:
    found = [each for path in sorted(SAMPLES.glob("eval-*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    suites = [each for each in found if each["kind"] == "EvalSuite"]
    return [evalsuite(each["metadata"]["name"], **{"model": None, "agent": {}, **each["spec"]}) for each in suites]


SUITES = _samples()


@pytest.fixture(scope="module")
def hands(apiserver: ApiServer) -> Hands:
    api = Api(apiserver.kubeconfig)
    install_crds(api)
    found = Hands(api, "suites")
    found.create_namespace()
    return found


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite["metadata"]["name"])
def test_the_api_server_accepts_the_jobset_its_jobs_its_pods_and_the_policies(hands: Hands, suite: Object) -> None:
    policies, jobset = made(suite)
    for child, path in [*((each, POLICIES) for each in policies.values()), (jobset, JOBSETS)]:
        meta = {**child["metadata"], "namespace": hands.namespace}
        stored = hands.api.apply(f"{path.format(hands.namespace)}/{meta['name']}", {**child, "metadata": meta})
        assert _within(child["spec"], stored["spec"])
    for role, each in roles(jobset).items():
        template = each["template"]
        job = {"apiVersion": "batch/v1", "kind": "Job", **template, "metadata": {"name": role}}
        created = hands.api.create(JOBS.format(hands.namespace) + "?dryRun=All", job)
        wanted = {key: value for key, value in template["spec"].items() if key != "template"}
        assert _within(wanted, created["spec"])
        spec = template["spec"]["template"]["spec"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": role}}
        hands.api.create(
            PODS.format(hands.namespace) + "?dryRun=All", {**pod, "spec": {**spec, "serviceAccountName": "default"}}
        )


def _within(sent: Any, kept: Any) -> bool:
    if isinstance(sent, dict):
        return all(name in kept and _within(value, kept[name]) for name, value in sent.items() if value not in ({}, []))
    if isinstance(sent, list):
        return len(sent) == len(kept) and all(map(_within, sent, kept))
    return str(sent) == str(kept)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite["metadata"]["name"])
def test_every_pod_is_hardened(suite: Object) -> None:
    _, jobset = made(suite)
    for role in roles(jobset):
        spec = pod_of(jobset, role)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for each in [*spec["containers"], *spec["initContainers"]]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
            }  # fmt: skip


def test_the_model_is_served_after_the_check_and_before_the_shards_and_ends_with_them() -> None:
    _, jobset = made(evalsuite(shards=4))
    found = roles(jobset)
    assert list(found) == ["preflight", "rollout", "worker"]
    assert found["rollout"]["dependsOn"] == [{"name": "preflight", "status": "Complete"}]
    assert found["worker"]["dependsOn"] == [{"name": "rollout", "status": "Ready"}]
    assert jobset["spec"]["successPolicy"] == {"operator": "All", "targetReplicatedJobs": ["worker"]}
    server = pod_of(jobset, "rollout")["containers"][0]
    assert server["readinessProbe"]["httpGet"]["path"] == "/v1/models"


def test_one_bad_shard_does_not_fail_the_others() -> None:
    job = roles(made(evalsuite(shards=4, backoffLimit=2))[1])["worker"]["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimitPerIndex"]) == (4, 4, 2)
    assert job["successPolicy"] == {"rules": [{"succeededCount": 1}]}
    permanent, checkpointed, disrupted = job["podFailurePolicy"]["rules"]
    assert (permanent["action"], permanent["onExitCodes"]["values"]) == ("FailJob", [64, 65, 69, 70, 78])
    assert (checkpointed["action"], checkpointed["onExitCodes"]["values"]) == ("Ignore", [85])
    assert disrupted["action"] == "Ignore"


def test_an_endpoint_elsewhere_needs_no_server() -> None:
    endpoint = {"url": "https://models.example.com/v1", "secretName": "key", "tokenizer": "Qwen/Qwen3-4B"}
    policies, jobset = made(evalsuite(model=None, engine={"external": endpoint}))
    assert list(roles(jobset)) == ["preflight", "worker"]
    assert roles(jobset)["worker"]["dependsOn"] == [{"name": "preflight", "status": "Complete"}]
    assert "rollout" not in policies
    env = environment(pod_of(jobset, "worker")["containers"][0])
    assert env["PINNACE_MODEL_API_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "key", "key": "apiKey"}
    assert "PINNACE_MODEL_URLS" not in env


def test_shards_are_told_where_the_servers_are_and_get_their_keys() -> None:
    suite = evalsuite(
        engine={"sglang": {"device": "cpu", "replicas": 2, "toolParser": "qwen25", "args": ["--log-level", "debug"]}},
        toolSandbox={"name": "tools", "tenant": "team-a"}, hubSecretName="hub",
        judge={"url": "https://judge.example.com/v1", "model": "j", "secretName": "judge"},
    )  # fmt: skip
    _, jobset = made(suite)
    worker = pod_of(jobset, "worker")["containers"][0]
    env = environment(worker)
    assert env["PINNACE_MODEL_URLS"]["value"] == "http://job-rollout-0-0.job:8000/v1,http://job-rollout-0-1.job:8000/v1"
    secrets = {name: each["valueFrom"]["secretKeyRef"] for name, each in env.items() if "secretKeyRef" in each.get("valueFrom", {})}  # fmt: skip # noqa: E501
    assert secrets["PINNACE_TOOLS_TOKEN"] == {"name": "tools-tokens", "key": "team-a"}
    assert secrets["PINNACE_JUDGE_API_KEY"] == {"name": "judge", "key": "apiKey"}
    assert secrets["HF_TOKEN"] == {"name": "hub", "key": "token"}
    assert json.loads(env["PINNACE_JOB"]["value"])["resolved"]["toolSandbox"]["uri"] == "http://tools.team.svc:8080"
    assert worker["image"] == "registry.example.com/pinnace/tools:1.2.3"
    rollout = pod_of(jobset, "rollout")
    fetch, server = rollout["initContainers"][0], rollout["containers"][0]
    assert fetch["command"] == ["pinnace", "eval", "fetch", "/scratch/model"]
    assert server["image"] == fetch["image"] == "registry.example.com/pinnace/rollout-sglang:1.2.3-cpu"
    assert server["command"][-2:] == ["--log-level", "debug"]
    assert server["command"][server["command"].index("--tool-call-parser") + 1] == "qwen25"
    wrapper = server["command"][: server["command"].index("python3")]
    assert subprocess.run([*wrapper, "true"], check=False).returncode == 85, "its Job would take 0 for the end of it"
    given = set(environment(server))
    assert not [name for name in given if name.startswith(("AWS_", "PINNACE_", "HF_TOKEN"))], "a server needs no keys"


def test_only_the_suites_own_shards_reach_its_server() -> None:
    policies, _ = made(evalsuite(toolSandbox={"name": "tools"}))
    uid = evalsuite()["metadata"]["uid"]
    server = policies["rollout"]["spec"]
    assert server["podSelector"]["matchLabels"] == {"pinnace.dev/uid": uid, "pinnace.dev/role": "rollout"}
    (rule,) = server["ingress"]
    assert rule["from"] == [
        {"podSelector": {"matchLabels": {"pinnace.dev/uid": uid, "pinnace.dev/role": "worker"}}}
    ]  # fmt: skip
    assert [each["port"] for each in rule["ports"]] == [8000]
    worker = policies["worker"]["spec"]
    assert worker["ingress"] == []
    ports = [each["port"] for rule in worker["egress"] if "to" not in rule for each in rule["ports"]]
    # DNS, the hub (gaia has no source), S3 and the operator.
    assert sorted(set(ports)) == [53, 443, 8443, 9000]
    gateway = worker["egress"][-1]["to"][0]["podSelector"]["matchLabels"]
    assert gateway == {"pinnace.dev/kind": "ToolSandbox", "pinnace.dev/name": "tools", "pinnace.dev/role": "gateway"}


def test_data_from_s3_alone_opens_no_way_to_the_internet() -> None:
    policies, _ = made(evalsuite(benchmarks=[{"name": "gaia", "source": {"uri": "s3://pinnace/gaia"}}]))
    for role in ("preflight", "worker", "rollout"):
        ports = {each["port"] for rule in policies[role]["spec"]["egress"] for each in rule["ports"]}
        assert 443 not in ports
