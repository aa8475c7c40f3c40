"""The images under the conditions of a real pod: uid 65532, read-only root, no capabilities, RuntimeDefault, limits."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from e2e.apiserver import BIN
from e2e.cluster import Cluster
from e2e.cluster.paths import DEFAULT_RUN
from e2e.images.load import Containerd, load
from e2e.images.recipe import RECIPES
from e2e.kube import Kubectl, Object

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
DIRECTORIES = {"tmp": "/tmp", "model": "/model", "shm": "/dev/shm"}
VOLUMES: dict[str, Object] = {"tmp": {}, "model": {}, "shm": {"medium": "Memory", "sizeLimit": "1Gi"}}
LIMITS = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "6Gi"}}
ZERO_2 = """
import deepspeed, os, torch
from deepspeed.git_version_info import installed_ops
from transformers import Qwen3Config, Qwen3ForCausalLM
torch.manual_seed(0)
deepspeed.init_distributed(dist_backend="gloo")
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
model = Qwen3ForCausalLM(Qwen3Config(**sizes, num_attention_heads=2, num_key_value_heads=1, head_dim=16))
settings = {
    "train_batch_size": 2, "bf16": {"enabled": True},
    "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-2}},
}
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=settings)
tokens = torch.arange(32).reshape(1, 32)
losses = []
for _ in range(4):
    loss = engine(input_ids=tokens, labels=tokens).loss
    engine.backward(loss)
    engine.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
assert installed_ops["deepspeed_shm_comm"] and installed_ops["cpu_adam"]
if os.environ["RANK"] == "0":
    print("trained by uid", os.getuid())
"""


def use(name: str, cluster: Cluster) -> str:
    """The image's reference, after it was loaded into the cluster."""
    assert cluster
    reference = RECIPES[name].reference("cpu")
    load(reference, Containerd(DEFAULT_RUN.socket, ctr=BIN / "ctr"))
    return reference


def pod(name: str, image: str, command: list[str], *, port: int | None = None) -> Object:
    """A pod as the operator makes them; /model/tiny holds a tiny Qwen3 when it serves on `port`."""
    mounts = [{"name": each, "mountPath": path} for each, path in DIRECTORIES.items()]
    basics: Object = {"image": image, "imagePullPolicy": "Never", "securityContext": RESTRICTED, "volumeMounts": mounts}
    environment = [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"}, {"name": "HF_HUB_OFFLINE", "value": "1"}]
    main: Object = {"name": "main", **basics, "command": command, "env": environment, "resources": LIMITS}
    spec: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [main],
        "volumes": [{"name": each, "emptyDir": VOLUMES[each]} for each in DIRECTORIES],
    }
    if port:
        main["readinessProbe"] = {"httpGet": {"path": "/v1/models", "port": port}, "periodSeconds": 1}
        spec["initContainers"] = [{"name": "model", **basics, "command": ["pinnace", "tiny-model", "/model/tiny"]}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def run_to_end(kubectl: Kubectl, manifest: Object, timeout: float = 120) -> str:
    """The pod's log; fails with it when the pod did."""
    kubectl.apply(manifest)
    name = manifest["metadata"]["name"]

    def ended() -> str:
        found = kubectl.get("pod", name) or {}
        phase = str(found.get("status", {}).get("phase", ""))
        return phase if phase in {"Succeeded", "Failed"} else ""

    phase = kubectl.wait(f"end of pod {name}", ended, timeout)
    log = kubectl.run("logs", name)
    assert phase == "Succeeded", log
    return log


@contextmanager
def served(kubectl: Kubectl, manifest: Object, port: int) -> Iterator[str]:
    """Address of the server in the pod, once it is ready; the pod is gone afterwards, as it takes gigabytes."""
    name = manifest["metadata"]["name"]
    kubectl.apply(manifest)
    try:
        kubectl.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=240s", timeout=250)
        with kubectl.port_forward(f"pod/{name}", port) as address:
            yield address
    finally:
        kubectl.run("delete", "pod", name, "--wait=true")


def chat(address: str) -> Object:
    """Eight tokens of a chat completion."""
    body = {"model": "tiny", "max_tokens": 8, "messages": [{"role": "user", "content": "12+30="}]}
    request = urllib.request.Request(
        f"http://{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        result: Object = json.load(answer)
    return result


@pytest.mark.parametrize(
    ("image", "script"),
    [
        ("operator", "import kopf, pinnace_operator.__main__, os; print('uid', os.getuid())"),
        ("tools", "import aiohttp, httpx, mcp, openai, pinnace.evals.suite.shard, os; print('uid', os.getuid())"),
    ],
)
def test_a_light_image_imports_what_it_is_for(cluster: Cluster, kubectl: Kubectl, image: str, script: str) -> None:
    log = run_to_end(kubectl, pod(image, use(image, cluster), ["python", "-c", script]))
    assert "uid 65532" in log


def test_the_command_line_of_every_image_starts(cluster: Cluster, kubectl: Kubectl) -> None:
    assert "sft" in run_to_end(kubectl, pod("cli", use("tools", cluster), ["pinnace", "--help"]))
    operator = run_to_end(kubectl, pod("opr", use("operator", cluster), ["pinnace-operator", "--help"]))
    assert "pinnace-operator" in operator


def test_the_trainer_runs_zero_2_on_two_processes_without_compiling(cluster: Cluster, kubectl: Kubectl) -> None:
    script = f"cat > /tmp/train.py <<'EOF'\n{ZERO_2}\nEOF\nexec torchrun --standalone --nproc-per-node 2 /tmp/train.py"
    log = run_to_end(kubectl, pod("zero", use("trainer", cluster), ["sh", "-c", script]), timeout=240)
    assert "trained by uid 65532" in log
    assert "torch_extensions" not in log


def test_vllm_answers(cluster: Cluster, kubectl: Kubectl) -> None:
    command = [
        "vllm",
        "serve",
        "/model/tiny",
        "--served-model-name",
        "tiny",
        "--enforce-eager",
        "--max-model-len",
        "512",
    ]
    manifest = pod("vllm", use("rollout-vllm", cluster), [*command, "--dtype", "float32", "--port", "8000"], port=8000)
    with served(kubectl, manifest, 8000) as address:
        assert chat(address)["usage"]["completion_tokens"] > 0


def test_sglang_answers(cluster: Cluster, kubectl: Kubectl) -> None:
    command = ["python", "-m", "sglang.launch_server", "--model-path", "/model/tiny", "--served-model-name", "tiny"]
    command += ["--device", "cpu", "--attention-backend", "torch_native", "--max-total-tokens", "8192"]
    command += ["--mem-fraction-static", "0.05", "--sleep-on-idle", "--host", "0.0.0.0", "--port", "8000"]  # noqa: S104  # in its own network namespace
    with served(kubectl, pod("sglang", use("rollout-sglang", cluster), command, port=8000), 8000) as address:
        assert chat(address)["usage"]["completion_tokens"] > 0
