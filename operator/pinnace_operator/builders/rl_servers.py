"""Commands of the servers that an RLRun samples with: as they must be started to be trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinnace_operator.api.fields import quantity_value
from pinnace_operator.api.pod import Device
from pinnace_operator.api.rlroles import RolloutServer
from pinnace_operator.api.rlrun import RLRunSpec
from pinnace_operator.builders import environment

MODEL = "/scratch/model"


def reference(port: int) -> tuple[str, ...]:
    return ("pinnace", "rl", "serve", MODEL, "--url", f"http://0.0.0.0:{port}")


def command(spec: RLRunSpec, server: RolloutServer, port: int) -> tuple[str, ...]:
    """SGLang's or vLLM's. The user's arguments come last."""
    made = _sglang(spec, server, port) if spec.rollout.sglang else _vllm(spec, server, port)
    return (*made, *server.args)


def environment_of(engine: str) -> list[dict[str, Any]]:
    """Its variables. vLLM's control routes belong to its development mode; a NetworkPolicy keeps others from them."""
    vllm = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    wanted = {"HF_HUB_OFFLINE": "1", **(vllm if engine == "vllm" else {})}
    return [environment.plain(name, value) for name, value in wanted.items()]


def threads(resources: Mapping[str, Any], processes: int = 1) -> list[dict[str, Any]]:
    """As many threads as the pod has cores, so that processes don't fight for them."""
    cores = (resources.get("limits") or {}).get("cpu") or (resources.get("requests") or {}).get("cpu")
    if cores is None:
        return []
    return [environment.plain("OMP_NUM_THREADS", str(max(1, int(quantity_value(cores) / processes))))]


def _sglang(spec: RLRunSpec, server: RolloutServer, port: int) -> list[str]:
    # Without a bound on tokens a CPU server takes a share of all the node's memory; without sleep it spins when idle.
    cpu = ["--device", "cpu", "--attention-backend", "torch_native", "--max-total-tokens", "65536", "--sleep-on-idle",
           "--dtype", "float32"]  # fmt: skip
    memory = f"{server.memory_percent / 100:g}" if server.memory_percent else None
    on_cpu = server.device is Device.CPU
    return [
        "python3", "-m", "sglang.launch_server", "--model-path", MODEL, "--host", "0.0.0.0",  # noqa: S104 -- in a pod, behind a NetworkPolicy
        "--port", str(port), "--context-length", str(spec.context_tokens), "--enable-metrics",
        *(["--tp-size", str(server.tensor_parallel)] if server.tensor_parallel > 1 else []),
        *(["--mem-fraction-static", memory or "0.05"] if memory or on_cpu else []),
        *(cpu if on_cpu else []),
    ]  # fmt: skip


def _vllm(spec: RLRunSpec, server: RolloutServer, port: int) -> list[str]:
    cpu = ["--enforce-eager", "--dtype", "float32", "--kv-cache-memory-bytes", str(1 << 30)]
    memory = f"{server.memory_percent / 100:g}" if server.memory_percent else None
    return [
        "python3", "-m", "vllm.entrypoints.cli.main", "serve", MODEL, "--port", str(port),
        "--max-model-len", str(spec.context_tokens), "--logprobs-mode", "processed_logprobs", "--enable-scale-out",
        "--disable-uvicorn-access-log",  # a line a turn
        "--worker-extension-cls", "pinnace.rl.server.vllm_worker.Repacking",
        *(["--tensor-parallel-size", str(server.tensor_parallel)] if server.tensor_parallel > 1 else []),
        *(["--gpu-memory-utilization", memory] if memory else []),
        *(cpu if server.device is Device.CPU else []),
    ]  # fmt: skip
