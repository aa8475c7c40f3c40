"""What serves the model that an EvalSuite asks: our own vLLM or SGLang, or an endpoint elsewhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pinnace_operator.api.base import ApiModel, ListType, matches
from pinnace_operator.api.device import all_gpus_used, gpus_with_cuda, no_gpus_on_a_cpu, no_parallel_tensors_on_a_cpu
from pinnace_operator.api.fields import HttpUrl, Image, ObjectName, whole
from pinnace_operator.api.pod import Device, PodTemplate, Resources
from pinnace_operator.api.shared import exactly_one

ModelName = Annotated[str, Field(min_length=1, max_length=200)]


class Server(ApiModel):
    """Pods that serve the model. Only this suite's workers reach them, and they end with the evaluation."""

    device: Device
    """What to compute on: cpu or cuda."""
    replicas: Annotated[int, whole(1, 64)] = 1
    """Servers; a shard keeps to one of them, so that its prefix cache is of use."""
    tensor_parallel: Annotated[int, whole(1, 64)] = 1
    """GPUs that one server spreads the model over: with cuda, as many as it has."""
    context_tokens: Annotated[int, whole(16, 16_777_216)] | None = None
    """The longest context that is served; absent: the model's own."""
    tool_parser: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The server's parser of native tool calls, such as `hermes` (vLLM) or `qwen25` (SGLang).

    Absent: it parses none, which suits agent.dialect Hermes and Action."""
    args: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=64), ListType()] = ()
    """More arguments of the server; they come last."""
    resources: Resources = Field(default_factory=Resources)
    image: Image | None = None
    """Another image than the operator's default for the engine and the device."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)

    rules = (
        no_gpus_on_a_cpu("engine"),
        no_parallel_tensors_on_a_cpu("engine"),
        gpus_with_cuda("engine", "tensorParallel"),
        all_gpus_used("engine", "tensorParallel"),
    )


class ExternalEndpoint(ApiModel):
    """An OpenAI-compatible endpoint that is there already."""

    url: HttpUrl
    """Its address, such as `https://models.example.com/v1`."""
    model: ModelName | None = None
    """The model's name there; absent: the only one."""
    secret_name: ObjectName | None = None
    """Secret in the suite's namespace whose key `apiKey` holds the key; absent: none is needed."""
    tokenizer: Annotated[
        str,
        Field(min_length=3, max_length=1024),
        matches(
            r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\s]+|[\w.-]+/[\w.-]+",
            "must be a folder in S3 or 'owner/name' on the hub, such as 'Qwen/Qwen3-4B'",
        ),
    ]
    """The model's tokenizer, by which contexts are measured: a folder in S3, or owner and name on the hub."""


class Engine(ApiModel):
    """Exactly one of vllm, sglang and external."""

    vllm: Server | None = None
    """Serve with vLLM."""
    sglang: Server | None = None
    """Serve with SGLang."""
    external: ExternalEndpoint | None = None

    rules = (exactly_one("engine", "vllm", "sglang", "external"),)

    @property
    def server(self) -> Server | None:
        """What is served here; None for an endpoint elsewhere."""
        return self.vllm or self.sglang
