"""What an EvalSuite's JobSet holds: a check, servers for the model, and shards that share the attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pinnace_operator.api.evalengine import Server
from pinnace_operator.api.evalsuite import EvalSuiteSpec
from pinnace_operator.api.fields import quantity_value
from pinnace_operator.api.pod import Device
from pinnace_operator.api.shared import ModelSource
from pinnace_operator.builders import environment, jobset, pod
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.images import Images
from pinnace_operator.builders.sft import without_devices

PREFLIGHT, ROLLOUT, WORKER = "preflight", "rollout", "worker"
SERVER, FETCH = "server", "fetch"
"""Containers of a rollout pod."""
PORT = 8000
MODEL = "/scratch/model"
_SMALL = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "4Gi"}}

Env = list[dict[str, Any]]


def evaluation(
    identity: Identity,
    spec: EvalSuiteSpec,
    *,
    env: Env,
    tools: Mapping[str, Any] | None,
    images: Images,
    budget: jobset.Budget,
) -> dict[str, Any]:
    """First `preflight` looks at everything that can be wrong, then the model is served, then the shards work.

    Args:
        env: storage, progress and the job's description.
        tools: where the ToolSandbox's token is: `secretName` and `key`.
    """
    known = [*env, *_keys(spec, tools)]
    check, worker = (_agent_template(identity, spec, known, images, role=role) for role in (PREFLIGHT, WORKER))
    checked = jobset.repeated_job(identity, PREFLIGHT, check, backoffLimit=spec.backoff_limit)
    roles = [jobset.Role(name=PREFLIGHT, job=checked)]
    server = spec.engine.server
    if server:
        template = _rollout_template(identity, spec, server, env, images)
        failures = spec.backoff_limit * server.replicas
        job = jobset.repeated_job(identity, ROLLOUT, template, nodes=server.replicas, backoffLimit=failures)
        roles.append(jobset.Role(name=ROLLOUT, job=job, after=PREFLIGHT, status="Complete"))
    shards = jobset.repeated_job(
        identity, WORKER, worker, nodes=spec.shards, backoffLimitPerIndex=spec.backoff_limit,
        # A shard ends well when all attempts have ended, whoever made them. So the first one to do so speaks for all.
        successPolicy={"rules": [{"succeededCount": 1}]},
    )  # fmt: skip
    last = roles[-1].name
    roles.append(jobset.Role(name=WORKER, job=shards, after=last, status="Ready" if last == ROLLOUT else "Complete"))
    return jobset.of_roles(
        identity, roles, main=WORKER, failure_policy=jobset.GAVE_UP, budget=budget, queue=spec.queue_name
    )  # fmt: skip


def model_name(source: ModelSource) -> str:
    """What the served model is called, also in reports."""
    if source.from_:
        return source.from_.name
    return source.hub.repo if source.hub else str(source.uri).rstrip("/").rpartition("/")[2]


def image_of(spec: EvalSuiteSpec, images: Images) -> str:
    """Of the pods that run the agent."""
    return spec.worker.image or images.tools


def _agent_template(identity: Identity, spec: EvalSuiteSpec, env: Env, images: Images, *, role: str) -> dict[str, Any]:
    command = ("pinnace", "eval", "shard" if role == WORKER else "preflight")
    resources = spec.worker.resources.to_manifest() if role == WORKER else {}
    container = pod.Container(
        name=role, image=image_of(spec, images), command=command, resources=resources or _SMALL,
        env=(*env, *_caches(), *_addresses(identity, spec)),
    )  # fmt: skip
    maps = [each.source.config_map.name for each in spec.benchmarks if each.source and each.source.config_map]
    return pod.template(
        (container,), labels=identity.labels(role), overlay=spec.worker.pod_template, pull_policy=images.pull_policy,
        config_maps=maps,
    )  # fmt: skip


def _rollout_template(
    identity: Identity, spec: EvalSuiteSpec, server: Server, env: Env, images: Images
) -> dict[str, Any]:
    """`fetch` brings the model from S3 or the hub, with credentials that the server is not given."""
    assert spec.model is not None  # noqa: S101 -- the API's rule for what is served here
    engine = "vllm" if spec.engine.vllm else "sglang"
    image = server.image or images.rollout(engine, server.device)
    resources = server.resources.to_manifest()
    command = (*_COMMANDS[engine](server, model_name(spec.model)), *server.args)
    containers = (
        pod.Container(
            name=FETCH, image=image, command=("pinnace", "eval", "fetch", MODEL), init=True,
            resources=without_devices(resources), env=(*env, *_caches(), *_hub(spec)),
        ),
        pod.Container(
            name=SERVER, image=image, command=jobset.never_done(command), resources=resources,
            env=tuple(_server_environment(server)), port=PORT,
        ),
    )  # fmt: skip
    return pod.template(
        containers, labels=identity.labels(ROLLOUT), overlay=server.pod_template, pull_policy=images.pull_policy
    )


def _vllm(server: Server, name: str) -> list[str]:
    return [
        "python3", "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--served-model-name", name,
        "--port", str(PORT),
        *(["--max-model-len", str(server.context_tokens)] if server.context_tokens else []),
        *(["--tensor-parallel-size", str(server.tensor_parallel)] if server.tensor_parallel > 1 else []),
        *(["--enable-auto-tool-choice", "--tool-call-parser", server.tool_parser] if server.tool_parser else []),
        *(["--enforce-eager", "--dtype", "float32"] if server.device is Device.CPU else []),
    ]  # fmt: skip


def _sglang(server: Server, name: str) -> list[str]:
    # Without a bound on tokens a CPU server takes a share of all the node's memory; without sleep it spins when idle.
    cpu = ["--device", "cpu", "--attention-backend", "torch_native", "--mem-fraction-static", "0.05",
           "--max-total-tokens", "65536", "--sleep-on-idle"]  # fmt: skip
    return [
        "python3", "-m", "sglang.launch_server", "--model-path", MODEL, "--served-model-name", name,
        "--host", "0.0.0.0", "--port", str(PORT),  # noqa: S104 -- in a pod, behind a NetworkPolicy
        *(["--context-length", str(server.context_tokens)] if server.context_tokens else []),
        *(["--tp-size", str(server.tensor_parallel)] if server.tensor_parallel > 1 else []),
        *(["--tool-call-parser", server.tool_parser] if server.tool_parser else []),
        *(cpu if server.device is Device.CPU else []),
    ]  # fmt: skip


_COMMANDS = {"vllm": _vllm, "sglang": _sglang}


def _server_environment(server: Server) -> Env:
    env = [environment.plain("HF_HUB_OFFLINE", "1")]
    if server.device is Device.CPU:
        limits = {**(server.resources.requests or {}), **(server.resources.limits or {})}
        threads = max(1, int(quantity_value(limits.get("cpu", 1))))
        env += [environment.plain("OMP_NUM_THREADS", str(threads)), environment.plain("VLLM_CPU_KVCACHE_SPACE", "1")]
    return env


def _addresses(identity: Identity, spec: EvalSuiteSpec) -> Env:
    """Where the servers will be: the names that JobSet gives to pods."""
    server = spec.engine.server
    if server is None:
        return []
    urls = [f"http://{identity.name}-{ROLLOUT}-0-{n}.{identity.name}:{PORT}/v1" for n in range(server.replicas)]
    return [environment.plain("PINNACE_MODEL_URLS", ",".join(urls))]


def _keys(spec: EvalSuiteSpec, tools: Mapping[str, Any] | None) -> Env:
    external = spec.engine.external
    wanted: Sequence[tuple[str, str | None, str]] = (
        ("PINNACE_MODEL_API_KEY", external.secret_name if external else None, "apiKey"),
        ("PINNACE_JUDGE_API_KEY", spec.judge.secret_name if spec.judge else None, "apiKey"),
        ("PINNACE_TOOLS_TOKEN", str(tools["secretName"]) if tools else None, str(tools["key"]) if tools else ""),
    )
    found = [environment.from_secret(name, secret, key, optional=False) for name, secret, key in wanted if secret]
    return [*found, *_hub(spec)]


def _hub(spec: EvalSuiteSpec) -> Env:
    secret = spec.hub_secret_name
    return [environment.from_secret("HF_TOKEN", secret, "token", optional=False)] if secret else []


def _caches() -> Env:
    """Copies of data and tokenizers may be large: not into /tmp."""
    return [environment.plain("PINNACE_CACHE", "/scratch/cache"), environment.plain("HF_HOME", "/scratch/hf")]
