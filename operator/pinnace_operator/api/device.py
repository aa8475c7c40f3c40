"""Rules of a role that has `device`, `resources` and `podTemplate`: what it computes on is there, and all of it used.

`gpus` is the field of the role that says how many GPUs it uses.
"""

from __future__ import annotations

from typing import Any

from pydantic.alias_generators import to_snake

from pinnace_operator.api.base import Rule
from pinnace_operator.api.pod import GPU, Device


def no_gpus_on_a_cpu(role: str) -> Rule:
    return Rule(
        "self.device != 'cpu' || !has(self.resources.limits) || !('nvidia.com/gpu' in self.resources.limits)",
        f"{role}.resources.limits: device cpu uses no nvidia.com/gpu: remove it, or set {role}.device to cuda",
        lambda given: given.device is not Device.CPU or GPU not in _limits(given),
        field=".resources",
    )


def no_parallel_tensors_on_a_cpu(role: str) -> Rule:
    return Rule(
        "self.device != 'cpu' || self.tensorParallel == 1",
        f"{role}.tensorParallel: device cpu has no GPUs to spread over: remove it, or set device to cuda",
        lambda given: given.device is not Device.CPU or given.tensor_parallel == 1,
        field=".tensorParallel",
    )


def gpus_with_cuda(role: str, gpus: str) -> Rule:
    return Rule(
        "self.device != 'cuda' || (has(self.resources.limits) && self.resources.limits.exists(k, k.contains('/')))"
        " || (has(self.podTemplate.resourceClaims) && size(self.podTemplate.resourceClaims) > 0)",
        f"{role}.resources.limits: device cuda needs GPUs: add nvidia.com/gpu (as many as {gpus}) to limits, "
        "or podTemplate.resourceClaims",
        lambda given: (
            given.device is not Device.CUDA
            or any("/" in name for name in _limits(given))
            or bool(given.pod_template.resource_claims)
        ),
        field=".resources",
    )


def all_gpus_used(role: str, gpus: str, *, remark: str = "") -> Rule:
    return Rule(
        "!has(self.resources.limits) || !('nvidia.com/gpu' in self.resources.limits)"
        f" || string(self.resources.limits['nvidia.com/gpu']) == string(self.{gpus})",
        f"{role}.{gpus}: it must equal resources.limits of nvidia.com/gpu{remark}: set both alike",
        lambda given: GPU not in _limits(given) or str(_limits(given)[GPU]) == str(getattr(given, to_snake(gpus))),
        field=f".{gpus}",
    )


def _limits(given: Any) -> dict[str, Any]:
    return given.resources.limits or {}
