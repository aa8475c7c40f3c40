"""What is made for an RLRun: five roles that repeat their own pods, who may talk to whom, and who knows what."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pinnace_operator.builders import environment
from pinnace_operator.builders.networkpolicy import DNS
from pinnace_operator.reconcile import registry
from pinnace_operator.reconcile.plan import Observed, OperatorSettings, Plan, StorageDefaults

from e2e.apiserver import ApiServer
from e2e.faults.api import JOBSETS, PODS, Api
from e2e.faults.cluster import Hands, install_crds
from e2e.simulation.decide import decide
from e2e.simulation.evalsuite import toolsandbox
from e2e.simulation.objects import NOW, OUTPUT, Object, condition, sftjob, started
from e2e.simulation.rlrun import ROLES, rlrun

SAMPLES = Path(__file__).parents[2] / "crds" / "samples"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"
SETTINGS = OperatorSettings(
    image_registry="registry.example.com", image_tag="1.2.3", progress_url="https://op:8443", progress_ca="PEM",
    storage=StorageDefaults(endpoint="http://s3:8333", bucket="everyone"),
)  # fmt: skip
VLLM: dict[str, Any] = {
    "toolSandbox": {"name": "tools", "tenant": "team-a"},
    "rollout": {"vllm": {
        "device": "cuda", "replicas": 3, "tensorParallel": 2, "memoryPercent": 80, "args": ["--seed", "1"],
        "resources": {"limits": {"nvidia.com/gpu": 2, "memory": "64Gi"}},
    }},
    "sampler": {"replicas": 3},
    "schedule": {"concurrency": 100},
}  # fmt: skip
UPSTREAMS: dict[tuple[str, str], Object | None] = {
    ("ToolSandbox", "tools"): toolsandbox(),
    **{
        (kind, name): {
            **sftjob(name, status=started(condition("Complete", reason="Completed"), output=OUTPUT)),
            "kind": kind,
        }
        for kind, name in (("SFTJob", "rl-warm-up"), ("MergeJob", "merge-qwen3-4b"))
    },
}


def plan(run: Object) -> Plan:
    return decide(run, settings=SETTINGS, upstreams=UPSTREAMS)


def gang(run: Object) -> dict[str, Object]:
    """By role: the Job's spec."""
    jobset = plan(run).children[-1]
    return {each["name"]: each["template"]["spec"] for each in jobset["spec"]["replicatedJobs"]}


def containers(job: Object) -> dict[str, Object]:
    spec = job["template"]["spec"]
    return {each["name"]: each for each in [*spec["initContainers"], *spec["containers"]]}


def told(container: Object) -> set[str]:
    return {each["name"] for each in container["env"]}


def policies(run: Object) -> dict[str, Object]:
    found = [each for each in plan(run).children if each["kind"] == "NetworkPolicy"]
    return {each["metadata"]["labels"]["pinnace.dev/role"]: each["spec"] for each in found}


def _samples() -> list[Object]:
    found = [each for path in sorted(SAMPLES.glob("rl-*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    return [rlrun(each["metadata"]["name"], **each["spec"]) for each in found if each["kind"] == "RLRun"]


RUNS = [*_samples(), rlrun("vllm", **VLLM)]


@pytest.fixture(scope="module")
def hands(apiserver: ApiServer) -> Hands:
    api = Api(apiserver.kubeconfig)
    install_crds(api)
    found = Hands(api, "rlruns")
    found.create_namespace()
    return found


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["metadata"]["name"])
def test_the_api_server_accepts_the_gang_its_jobs_pods_and_policies(hands: Hands, run: Object) -> None:
    *beside, jobset = plan(run).children
    space = hands.namespace
    meta = {**jobset["metadata"], "namespace": space}
    stored = hands.api.apply(f"{JOBSETS.format(space)}/{meta['name']}", {**jobset, "metadata": meta})
    assert stored["spec"]["failurePolicy"]["rules"] == jobset["spec"]["failurePolicy"]["rules"]
    assert stored["spec"]["successPolicy"] == jobset["spec"]["successPolicy"]
    for replicated in jobset["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job", **replicated["template"], "metadata": {"name": "job"}}
        made = hands.api.create(JOBS.format(space) + "?dryRun=All", job)
        assert made["spec"]["podFailurePolicy"]["rules"][0]["action"] == "FailJob"
        spec = {**replicated["template"]["spec"]["template"]["spec"], "serviceAccountName": "default"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        created = hands.api.create(PODS.format(space) + "?dryRun=All", pod)
        asked = [each.get("restartPolicy") for each in spec["initContainers"]]
        assert [each.get("restartPolicy") for each in created["spec"]["initContainers"]] == asked
    for each in beside:
        hands.api.create(
            POLICIES.format(space) + "?dryRun=All", {**each, "metadata": {"name": each["metadata"]["name"]}}
        )


def test_a_lost_server_or_sampler_never_restarts_the_trainer() -> None:
    """Each Job makes its own pods again; the JobSet never restarts, and ends with the trainer."""
    jobset = plan(rlrun(backoffLimit=5)).children[-1]["spec"]
    assert [each["name"] for each in jobset["replicatedJobs"]] == list(ROLES)
    assert jobset["failurePolicy"]["maxRestarts"] == 0
    assert {rule["action"] for rule in jobset["failurePolicy"]["rules"]} == {"FailJobSet"}
    assert jobset["successPolicy"] == {"operator": "All", "targetReplicatedJobs": ["trainer"]}
    assert not any("dependsOn" in each for each in jobset["replicatedJobs"]), "one admission, one start"
    jobs = {each["name"]: each["template"]["spec"] for each in jobset["replicatedJobs"]}
    assert jobs["trainer"]["backoffLimit"] == 5
    assert jobs["rollout"]["completions"] == 2
    assert jobs["rollout"]["backoffLimit"] > 20, "two servers may be lost many times in a long run"
    for job in jobs.values():
        actions = [
            (rule["action"], *rule.get("onExitCodes", {}).get("values", ()))
            for rule in job["podFailurePolicy"]["rules"]
        ]
        assert actions == [("FailJob", 64, 65, 69, 70, 78), ("Ignore", 85), ("Ignore",)]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["metadata"]["name"])
def test_no_role_but_the_trainer_can_end_its_job(run: Object) -> None:
    """Where a deleted pod ends with 0, its Job would be complete: nobody makes the pod again, and the others wait."""
    jobs = gang(run)
    assert containers(jobs.pop("trainer"))["trainer"]["command"][0] == "pinnace"
    for role, job in jobs.items():
        command = containers(job)[role]["command"]
        wrapper = command[: next(n for n, word in enumerate(command) if word in ("pinnace", "python3"))]
        assert subprocess.run([*wrapper, "true"], check=False).returncode == 85, role
        assert subprocess.run([*wrapper, "sh", "-c", "exit 64"], check=False).returncode == 64, role


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["metadata"]["name"])
def test_every_pod_of_a_run_is_hardened_and_prepares_itself(run: Object) -> None:
    for role, job in gang(run).items():
        spec = job["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["initContainers"][0]["command"] == ["pinnace", "rl", "prepare", role]
        assert "nvidia.com/gpu" not in str([each["resources"] for each in spec["initContainers"]])
        for each in containers(job).values():
            assert each["securityContext"]["readOnlyRootFilesystem"] is True


def test_only_who_needs_s3_gets_its_credentials() -> None:
    jobs = gang(rlrun())
    knows = {role: "AWS_SECRET_ACCESS_KEY" in told(containers(jobs[role])[role]) for role in ROLES}
    assert knows == {"trainer": True, "rollout": False, "sampler": False, "coordinator": False, "proxy": True}
    keyed = {role: "PINNACE_RL_KEY" in told(containers(jobs[role])[role]) for role in ROLES}
    assert keyed == {"trainer": True, "rollout": False, "sampler": True, "coordinator": True, "proxy": True}
    mirror = containers(jobs["rollout"])["mirror"]
    assert (mirror["restartPolicy"], "AWS_SECRET_ACCESS_KEY" in told(mirror)) == ("Always", True)


def test_the_processes_know_each_other_by_a_key_that_the_operator_never_sees() -> None:
    (request,) = plan(rlrun()).secrets
    (key,) = [
        each for each in containers(gang(rlrun())["sampler"])["sampler"]["env"] if each["name"] == "PINNACE_RL_KEY"
    ]
    assert (request.name, request.keys) == ("job-rl", ("key",))
    assert key == environment.from_secret("PINNACE_RL_KEY", "job-rl", "key", optional=False)
    running = registry.reconcile(
        rlrun(status=started()), Observed(now=NOW, settings=SETTINGS, jobset=plan(rlrun()).children[-1])
    )
    assert not running.secrets or running.children, "nothing is asked for once the gang is there"


def test_a_configuration_can_be_made_of_what_prepare_finds() -> None:
    env = {each["name"]: each for each in containers(gang(rlrun("vllm", **VLLM))["sampler"])["prepare"]["env"]}
    assert env["PINNACE_RL_COORDINATOR"]["value"] == "http://vllm-coordinator-0-0.vllm:8700"
    assert env["PINNACE_RL_PROXY"]["value"] == "http://vllm-proxy-0-0.vllm:8701"
    assert env["PINNACE_RL_SERVERS"]["value"].split(",")[2] == "http://vllm-rollout-0-2.vllm:8710"
    assert env["PINNACE_RL_MIRRORS"]["value"].split(",")[2] == "http://vllm-rollout-0-2.vllm:8720"
    assert env["PINNACE_TOOLS_URL"]["value"] == "http://tools.team.svc:8080"
    assert env["PINNACE_TOOLS_TOKEN"]["valueFrom"]["secretKeyRef"]["key"] == "team-a"
    job = json.loads(env["PINNACE_JOB"]["value"])
    assert (job["runPath"], job["resolved"]["model"]) == (
        "team/rlrun/vllm/0a1b2c3d",
        {"uri": "s3://pinnace/models/tiny"},
    )


def test_samplers_alone_know_the_judge_and_reach_it() -> None:
    judge = {"url": "https://judge.example.com:9443/v1", "model": "m", "secretName": "judge-key"}
    run = rlrun(reward={"grader": {"judge": judge}}, agent={"loop": {}})
    knows = {role: "PINNACE_JUDGE_API_KEY" in told(containers(job)[role]) for role, job in gang(run).items()}
    assert [role for role, known in knows.items() if known] == ["sampler"]
    env = {each["name"]: each for each in containers(gang(run)["sampler"])["sampler"]["env"]}
    assert env["PINNACE_JUDGE_URL"]["value"] == judge["url"]
    assert env["PINNACE_JUDGE_API_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "judge-key", "key": "apiKey"}
    opened = {role for role, spec in policies(run).items() if "9443" in json.dumps(spec["egress"])}
    assert opened == {"sampler"}


def test_servers_are_started_as_training_needs_them() -> None:
    vllm = containers(gang(rlrun("vllm", **VLLM))["rollout"])["rollout"]
    assert vllm["image"] == "registry.example.com/pinnace/rollout-vllm:1.2.3-cuda"
    assert vllm["command"][-2:] == ["--seed", "1"], "the user's come last"
    text = " ".join(vllm["command"])
    for part in ("--logprobs-mode processed_logprobs", "--enable-scale-out", "--max-model-len 512",
                 "--tensor-parallel-size 2", "--gpu-memory-utilization 0.8", "serve /scratch/model"):  # fmt: skip
        assert part in text
    assert {"VLLM_SERVER_DEV_MODE", "HF_HUB_OFFLINE"} <= told(vllm)
    assert vllm["readinessProbe"]["httpGet"]["path"] == "/v1/models", "/health blocks while a server is paused"
    sglang = containers(
        gang(rlrun(rollout={"sglang": {"device": "cpu", "resources": {"limits": {"cpu": 3}}}}))["rollout"]
    )
    text = " ".join(sglang["rollout"]["command"])
    for part in ("--context-length 512", "--device cpu", "--mem-fraction-static 0.05", "--dtype float32"):
        assert part in text
    assert {"name": "OMP_NUM_THREADS", "value": "3"} in sglang["rollout"]["env"]
    reference = containers(gang(rlrun())["rollout"])["rollout"]
    assert reference["command"][-6:] == ["pinnace", "rl", "serve", "/scratch/model", "--url", "http://0.0.0.0:8710"]
    assert "readinessProbe" not in reference


def test_samplers_share_the_attempts() -> None:
    sampler = containers(gang(rlrun("vllm", **VLLM))["sampler"])["sampler"]
    words = sampler["command"][sampler["command"].index("pinnace") :]
    assert words[:6] == ["pinnace", "rl", "sample", "/scratch/run.json", "--slots", "34"]
    assert sampler["image"] == "registry.example.com/pinnace/tools:1.2.3"


def test_only_the_proxy_reaches_the_servers() -> None:
    found = policies(rlrun("vllm", **VLLM))
    assert set(found) == set(ROLES)
    reached = {
        role: sorted(
            (
                peer["from"][0]["podSelector"]["matchLabels"]["pinnace.dev/role"],
                *(port["port"] for port in peer["ports"]),
            )
            for peer in spec["ingress"]
        )
        for role, spec in found.items()
    }
    assert reached == {
        "trainer": [], "sampler": [], "rollout": [("proxy", 8710, 8720)],
        "coordinator": [("sampler", 8700), ("trainer", 8700)], "proxy": [("sampler", 8701), ("trainer", 8701)],
    }  # fmt: skip
    gateway = found["sampler"]["egress"][-1]
    assert gateway["to"][0]["podSelector"]["matchLabels"]["pinnace.dev/name"] == "tools"
    assert DNS in found["rollout"]["egress"]
    ports = {port["port"] for each in found["trainer"]["egress"] if "to" not in each for port in each["ports"]}
    assert ports == {53, 8333, 8443}


def test_an_agent_of_the_users_own_may_call_whom_it_likes() -> None:
    own = rlrun(agent={"command": ["play"]}, reward={"api": {}})
    assert policies(own)["sampler"]["egress"][-1] == {}
    assert {} not in policies(own)["rollout"]["egress"]
