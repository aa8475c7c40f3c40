"""What an RLRun's JobSet holds: a trainer, rollout servers, samplers, a coordinator and a proxy, in one gang.

Each role repeats its own pods, so a lost server or sampler never restarts the trainer, and a lost trainer no server. In
every pod `prepare` first brings what the role needs to its disk and writes the run's configuration there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from pinnace_operator.api.pod import Device, PodTemplate
from pinnace_operator.api.rlroles import ReferenceServer
from pinnace_operator.api.rlrun import RLRunSpec
from pinnace_operator.builders import environment, jobset, pod, rl_servers
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.images import Images
from pinnace_operator.builders.sft import without_devices

TRAINER, ROLLOUT, SAMPLER, COORDINATOR, PROXY = "trainer", "rollout", "sampler", "coordinator", "proxy"
MIRROR, PREPARE = "mirror", "prepare"
"""Beside a server: fetches weights from S3, with credentials that the server is not given. And the first container."""
COORDINATOR_PORT, PROXY_PORT, SERVER_PORT, MIRROR_PORT, METRICS_PORT = 8700, 8701, 8710, 8720, 9090
CONFIG, WEIGHTS = "/scratch/run.json", "/scratch/weights"
KEY = "key"
LOSSES = 20
"""How often a pod that is no trainer may be lost, on average, before the run gives up."""
_SMALL = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "4Gi"}}

Env = tuple[dict[str, Any], ...]


def run(
    identity: Identity,
    spec: RLRunSpec,
    *,
    env: list[dict[str, Any]],
    tools: Mapping[str, Any] | None,
    images: Images,
    budget: jobset.Budget,
) -> dict[str, Any]:
    """The gang. It succeeds when the trainer does; the others are ended then.

    Args:
        env: storage, progress and job description.
        tools: where the ToolSandbox is, and its token: `uri`, `secretName` and `key`.
    """
    whole = (*env, _key(identity), *_addresses(identity, spec))
    role = partial(_role, identity, spec, whole, images)
    roles = (
        role(TRAINER, _trainer(spec, images), spec.backoff_limit),
        role(ROLLOUT, _server(spec, images)),
        role(SAMPLER, _sampler(spec, images, tools)),
        role(COORDINATOR, _control(spec, images, COORDINATOR, Told.KEY)),
        role(PROXY, _control(spec, images, PROXY, Told.ALL)),
    )
    return jobset.of_roles(
        identity, roles, main=TRAINER, failure_policy=jobset.GAVE_UP, budget=budget, queue=spec.queue_name
    )


def secret(name: str) -> str:
    """Name of the Secret with the key by which the run's processes know each other."""
    return f"{name}-rl"


def image_of(spec: RLRunSpec, images: Images) -> str:
    """Of the trainer."""
    return spec.trainer.image or images.trainer(spec.trainer.device)


class Told(Enum):
    """What a role's main container learns of the run. Agents and servers get no credentials of S3."""

    ALL = "all"
    KEY = "key"
    NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True)
class _Pod:
    """What tells one role's pods from another's."""

    image: str
    command: tuple[str, ...]
    resources: dict[str, Any]
    overlay: PodTemplate
    told: Told
    pods: int = 1
    env: Env = ()
    mirror: bool = False
    port: int | None = None


def _role(
    identity: Identity, spec: RLRunSpec, env: Env, images: Images, name: str, made: _Pod, failures: int | None = None
) -> jobset.Role:
    told = {Told.ALL: env, Told.KEY: (_key(identity),), Told.NOTHING: ()}
    prepare = pod.Container(
        name=PREPARE, image=made.image, command=("pinnace", "rl", "prepare", name), init=True,
        resources=without_devices(made.resources), env=(*env, *made.env),
    )  # fmt: skip
    beside = pod.Container(
        name=MIRROR, image=made.image, sidecar=True, resources={"requests": {"cpu": "50m", "memory": "128Mi"}},
        command=("pinnace", "rl", "mirror", WEIGHTS, "--url", f"http://0.0.0.0:{MIRROR_PORT}"), env=env,
    )  # fmt: skip
    command = made.command if name == TRAINER else jobset.never_done(made.command)
    main = pod.Container(
        name=name, image=made.image, command=command, resources=made.resources,
        env=(*told[made.told], *made.env), port=made.port,
    )  # fmt: skip
    tasks = spec.tasks.config_map
    template = pod.template(
        (prepare, beside, main) if made.mirror else (prepare, main), labels=identity.labels(name),
        overlay=made.overlay, pull_policy=images.pull_policy, config_maps=[tasks.name] if tasks else [],
    )  # fmt: skip
    limit = LOSSES * made.pods if failures is None else failures
    job = jobset.repeated_job(identity, name, template, nodes=made.pods, backoffLimit=limit)
    return jobset.Role(name=name, job=job)


def _trainer(spec: RLRunSpec, images: Images) -> _Pod:
    trainer = spec.trainer
    resources = trainer.resources.to_manifest()
    gpu = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "NCCL_DEBUG": "WARN"}
    if trainer.device is Device.CUDA:
        env = [environment.plain(name, value) for name, value in gpu.items()]
    else:
        env = rl_servers.threads(resources, trainer.processes)
    return _Pod(
        image=image_of(spec, images), command=("pinnace", "rl", "train", CONFIG), resources=resources,
        overlay=trainer.pod_template, told=Told.ALL, env=tuple(env),
    )  # fmt: skip


def _server(spec: RLRunSpec, images: Images) -> _Pod:
    server, engine = spec.rollout.server, spec.rollout.engine
    resources = server.resources.to_manifest()
    if isinstance(server, ReferenceServer):
        # The trainer's image has no HTTP server; vLLM's has one beside torch and transformers.
        command, image, env = rl_servers.reference(SERVER_PORT), images.rollout("vllm", Device.CPU), []
    else:
        command = rl_servers.command(spec, server, SERVER_PORT)
        image, env = images.rollout(engine, server.device), rl_servers.environment_of(engine)
    if isinstance(server, ReferenceServer) or server.device is Device.CPU:
        env = [*env, *rl_servers.threads(resources)]
    return _Pod(
        image=server.image or image, command=command, resources=resources, overlay=server.pod_template,
        told=Told.NOTHING, pods=server.replicas, env=tuple(env), mirror=True,
        port=None if isinstance(server, ReferenceServer) else SERVER_PORT,
    )  # fmt: skip


def _sampler(spec: RLRunSpec, images: Images, tools: Mapping[str, Any] | None) -> _Pod:
    sampler = spec.sampler
    slots = -(-spec.schedule.concurrency // sampler.replicas)
    sandbox = (
        environment.plain("PINNACE_TOOLS_URL", str(tools["uri"])),
        environment.from_secret("PINNACE_TOOLS_TOKEN", tools["secretName"], tools["key"], optional=False),
        environment.plain("PINNACE_TOOLS_OFFERED", ",".join(spec.tool_sandbox.tools if spec.tool_sandbox else ())),
    ) if tools else ()  # fmt: skip
    return _Pod(
        image=sampler.image or images.tools, resources=sampler.resources.to_manifest() or _SMALL,
        command=("pinnace", "rl", "sample", CONFIG, "--slots", str(slots), "--metrics-port", str(METRICS_PORT)),
        overlay=sampler.pod_template, told=Told.KEY, pods=sampler.replicas, env=(*sandbox, *_judge(spec)),
    )  # fmt: skip


def _judge(spec: RLRunSpec) -> Env:
    judge = spec.reward.grader.judge if spec.reward.grader else None
    if judge is None:
        return ()
    named = (
        environment.plain("PINNACE_JUDGE_URL", judge.url),
        environment.plain("PINNACE_JUDGE_MODEL", judge.model),
    )
    if judge.secret_name is None:
        return named
    return (*named, environment.from_secret("PINNACE_JUDGE_API_KEY", judge.secret_name, "apiKey", optional=False))


def _control(spec: RLRunSpec, images: Images, role: str, told: Told) -> _Pod:
    control = spec.control
    return _Pod(
        image=images.tools, command=("pinnace", "rl", role, CONFIG), told=told, overlay=control.pod_template,
        resources=control.resources.to_manifest() or _SMALL,
    )  # fmt: skip


def _key(identity: Identity) -> dict[str, Any]:
    return environment.from_secret("PINNACE_RL_KEY", secret(identity.name), KEY, optional=False)


def _addresses(identity: Identity, spec: RLRunSpec) -> Env:
    """What `prepare` makes the configuration of: the names that JobSet gives to pods."""

    def at(role: str, port: int, index: int = 0) -> str:
        return f"http://{identity.name}-{role}-0-{index}.{identity.name}:{port}"

    servers = range(spec.rollout.server.replicas)
    return (
        environment.plain("PINNACE_RL_COORDINATOR", at(COORDINATOR, COORDINATOR_PORT)),
        environment.plain("PINNACE_RL_PROXY", at(PROXY, PROXY_PORT)),
        environment.plain("PINNACE_RL_SERVERS", ",".join(at(ROLLOUT, SERVER_PORT, n) for n in servers)),
        environment.plain("PINNACE_RL_MIRRORS", ",".join(at(ROLLOUT, MIRROR_PORT, n) for n in servers)),
        environment.plain("HF_HOME", "/scratch/hf"),
    )
