"""What an SFTJob's JobSet holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinnace_operator.api.fields import quantity_value
from pinnace_operator.api.pod import Device
from pinnace_operator.api.sft import SFTJobSpec, TrainerRole
from pinnace_operator.builders import environment, jobset, pod
from pinnace_operator.builders.identity import Identity
from pinnace_operator.builders.images import Images

ROLE = "trainer"


def training(
    identity: Identity,
    spec: SFTJobSpec,
    *,
    env: list[dict[str, Any]],
    images: Images,
    budget: jobset.Budget,
) -> dict[str, Any]:
    """The gang of trainers: `preflight` checks storage, model and data in each pod, then `trainer` trains.

    Args:
        env: storage, progress and job description, the same for both containers.
    """
    role = spec.trainer
    resources = role.resources.to_manifest()
    variables = (*env, *environment.tracking(spec.tracking), *device_environment(role))
    image = image_of(role, images)
    containers = (
        pod.Container(
            name="preflight", image=image, command=("pinnace", "sft", "preflight"), init=True,
            resources=without_devices(resources), env=variables,
        ),
        pod.Container(
            name=ROLE, image=image, command=("pinnace", "sft", "train"), resources=resources, env=variables
        ),
    )  # fmt: skip
    template = pod.template(
        containers,
        labels=identity.labels(ROLE),
        overlay=role.pod_template,
        pull_policy=images.pull_policy,
        config_maps=config_maps(spec),
    )
    return jobset.jobset(
        identity, role=ROLE, nodes=role.nodes, pod_template=template, budget=budget, queue=spec.queue_name
    )


def image_of(role: TrainerRole, images: Images) -> str:
    """The user's image, or ours for the device."""
    return role.image or images.trainer(role.device)


def config_maps(spec: SFTJobSpec) -> list[str]:
    """Names of the ConfigMaps that the pods read."""
    sources = [
        spec.data.train.config_map,
        spec.data.eval.config_map if spec.data.eval else None,
        spec.data.chat_template,
    ]
    return [each.name for each in sources if each]


def device_environment(role: TrainerRole) -> list[dict[str, Any]]:
    """Threads for a CPU trainer, so that processes don't fight for cores; memory and NCCL settings for a GPU one."""
    if role.device is Device.CUDA:
        return [
            environment.plain("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
            environment.plain("NCCL_DEBUG", "WARN"),
            # A lost peer ends the others with an error instead of a hang.
            environment.plain("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
        ]
    cores = (role.resources.limits or {}).get("cpu") or (role.resources.requests or {}).get("cpu")
    if cores is None:
        return []
    threads = max(1, int(quantity_value(cores) / role.processes_per_node))
    return [environment.plain("OMP_NUM_THREADS", str(threads))]


def without_devices(resources: Mapping[str, Any]) -> dict[str, Any]:
    """The same resources without GPUs: preflight needs none, and must not hold some a second time."""
    return {
        kind: {name: amount for name, amount in amounts.items() if "/" not in name}
        for kind, amounts in resources.items()
    }
