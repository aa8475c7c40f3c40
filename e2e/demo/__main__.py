"""`make demo`: from a bare machine to tools that survive and a tuned, fused model that is better, everything real."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Annotated, Any

import openai
import typer
import yaml
from pinnace.tiny.task import TOOLS
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel

from e2e import install
from e2e.apiserver import BIN
from e2e.cluster import Cluster, ClusterError, cluster
from e2e.cluster.addons import S3Access
from e2e.demo import evaluation, reward, tools
from e2e.demo.stages import Report, Stages
from e2e.images.errors import ImageError
from e2e.images.recipe import RECIPES
from e2e.kube import CommandError, Kubectl, Object, condition, ended

FOLDER = Path(__file__).parent
SAMPLES = FOLDER.parents[1] / "crds" / "samples"
NAMESPACE = "demo"
IMAGES = ["operator", "tools", "trainer", "rollout-vllm"]
QUESTION = (31, 47)


class DemoFailed(RuntimeError):
    """A step did not end well; the message says which and why."""


def manifest(name: str, kubectl: Kubectl, **values: str) -> Object:
    """A YAML file of this folder with `$values` filled in; `$storage` becomes the pods' S3 environment."""
    keys = {
        "PINNACE_S3_ENDPOINT": "endpoint",
        "PINNACE_S3_BUCKET": "bucket",
        "AWS_REGION": "region",
        "AWS_ACCESS_KEY_ID": "accessKeyId",
        "AWS_SECRET_ACCESS_KEY": "secretAccessKey",
    }
    storage = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": install.STORAGE_SECRET, "key": key}}}
        for variable, key in keys.items()
    ]
    text = Template((FOLDER / name).read_text()).substitute(
        values, storage=json.dumps([{"name": "HOME", "value": "/tmp"}, *storage])
    )
    loaded: Object = yaml.safe_load(text)
    loaded["metadata"]["namespace"] = kubectl.namespace
    return loaded


def make_tiny_model(kubectl: Kubectl, uri: str) -> None:
    kubectl.run("delete", "job", "tiny-model", "--ignore-not-found", "--wait")
    kubectl.apply(manifest("tiny-model.yaml", kubectl, image=RECIPES["trainer"].reference("cpu"), model=uri))
    done = kubectl.wait("the tiny model", lambda: ended(kubectl.get("job", "tiny-model") or {}), timeout=180)
    if done != "Complete":
        raise DemoFailed("making the tiny model failed:\n" + kubectl.run("logs", "job/tiny-model", "--tail=20"))


def follow(kubectl: Kubectl, sample: str, report: Report) -> Object:
    """Apply a job's sample and follow it (if it is more than one: the last) to its end; returns the finished job."""
    kubectl.run("apply", "-f", str(SAMPLES / sample))
    *_, manifest = yaml.safe_load_all((SAMPLES / sample).read_text())
    kind, name = manifest["kind"], manifest["metadata"]["name"]

    def finished() -> Object | None:
        job = kubectl.get(kind, name) or {}
        report(describe(job))
        return job if ended(job) else None

    job: Object = kubectl.wait(f"the {kind}", finished, timeout=900, poll=1)
    if condition(job, "Failed").get("status") == "True":
        raise DemoFailed(f"the {kind} failed: {condition(job, 'Failed').get('message')}")
    return job


def describe(job: Object) -> str:
    """One line on a job's state, for a person who watches."""
    status = job.get("status", {})
    progress, metrics = status.get("progress", {}), status.get("progress", {}).get("metrics", [])
    values = {each["name"]: each["value"] for each in metrics}
    shown = next((f", {name} {values[name]}" for name in ("reward", "loss") if name in values), "")
    steps = f", step {progress['step']}/{progress.get('totalSteps', '?')}{shown}" if progress.get("step") else ""
    pending = f": {status['pending']['message']}" if status.get("pending") else ""
    return f"{status.get('state', 'Pending')}{steps}{pending}"


def serve(kubectl: Kubectl, uri: str) -> None:
    image = RECIPES["rollout-vllm"].reference("cpu")
    kubectl.apply(manifest("serve.yaml", kubectl, image=image, model=uri))
    kubectl.run("rollout", "status", "deployment/demo-model", "--timeout=300s", timeout=310)


def ask(kubectl: Kubectl) -> str:
    """Play one question with an unmodified OpenAI client: the model calls the tool, reads its result and answers."""
    a, b = QUESTION
    with kubectl.port_forward("deployment/demo-model", 8000) as address:
        client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none")
        messages: list[Any] = [{"role": "user", "content": f"{a}+{b}"}]
        options: dict[str, Any] = {
            "model": "demo",
            "tools": TOOLS,
            "tool_choice": "none",
            "temperature": 0,
            "max_tokens": 64,
        }
        call = client.chat.completions.create(messages=messages, **options).choices[0].message.content or ""
        messages += [
            {"role": "assistant", "content": call},
            {"role": "tool", "tool_call_id": "0", "content": str(a + b)},
        ]
        answer = client.chat.completions.create(messages=messages, **options).choices[0].message.content or ""
    return f"user       {a}+{b}\nassistant  {call}\ntool       {a + b}\nassistant  {answer}"


def use_tools(stages: Stages, kubectl: Kubectl) -> None:
    with stages.stage("Start the tools: kubectl apply -f crds/samples/toolsandbox-demo.yaml") as report:
        sandbox = tools.start(kubectl)
        tools.until_ready(kubectl, sandbox, report)
    stages.console.print(kubectl.run("get", "toolsandbox"), style="dim")
    with stages.stage("Call five of them with an MCP client while pods of a server are killed"):
        used = tools.use(kubectl, sandbox["metadata"]["name"])
    stages.console.print(tools.table(used), *used.metrics, sep="\n", style="dim")
    if failed := [tool for tool, outcome, *_ in used.calls if outcome != "ok"]:
        raise DemoFailed(f"calls failed: {', '.join(failed)}")


def evaluate(stages: Stages, kubectl: Kubectl, s3: S3Access) -> list[RenderableType]:
    """Has training made it better? Returns what the evaluation came to."""
    with stages.stage("Compare the models: kubectl apply -f crds/samples/eval-demo.yaml") as report:
        suites = evaluation.until_complete(kubectl, evaluation.start(kubectl), report)
    stages.console.print(kubectl.run("get", "evalsuite"), style="dim")
    for each in suites:
        if (failed := condition(each, "Failed")).get("status") == "True":
            raise DemoFailed(f"the EvalSuite {each['metadata']['name']} failed: {failed.get('message')}")
    reports = [each["status"]["output"]["uri"] for each in suites]
    addresses = "\n".join(f"report      {uri}/report.html" for uri in reports)
    copy = evaluation.copy_report(s3, reports[-1])
    return ["", evaluation.table(suites), "", f"{addresses}\n            the last one is copied to {copy}"]


def run(stages: Stages, kube: Cluster) -> Group:
    """All stages in order; returns the summary."""
    with stages.stage("Build the images that changed") as report:
        install.build_images(IMAGES, report)
    with stages.stage("Start Kubernetes, JobSet and S3"):
        kube.up()
    with stages.stage("Load the images") as report:
        install.load_images(kube, IMAGES, report)
    with stages.stage("Install the operator with Helm"):
        install.install_operator(kube)
        kubectl = install.namespace(kube, NAMESPACE)
    use_tools(stages, kubectl)
    model = yaml.safe_load((SAMPLES / "sft-demo.yaml").read_text())["spec"]["model"]["uri"]
    with stages.stage("Make a tiny Qwen3 and put it into S3"):
        make_tiny_model(kubectl, model)
    with stages.stage("Fine-tune it: kubectl apply -f crds/samples/sft-demo.yaml") as report:
        tuned = follow(kubectl, "sft-demo.yaml", report)
    with stages.stage("Fuse it with the model it was: kubectl apply -f crds/samples/merge-demo.yaml") as report:
        merged = follow(kubectl, "merge-demo.yaml", report)
    with stages.stage("Train it by reward alone: kubectl apply -f crds/samples/rl-demo.yaml") as report:
        learned = reward.rewards(kube, follow(kubectl, "rl-demo.yaml", report))
    stages.console.print(f"reward {learned}", style="dim")
    stages.console.print(kubectl.run("get", "sft,mrg,rlr,jobset,pods"), style="dim")
    with stages.stage("Serve the fused model with vLLM"):
        serve(kubectl, merged["status"]["output"]["uri"])
    with stages.stage("Ask it"):
        dialogue = ask(kubectl)
    kubectl.run("delete", "deployment", "demo-model")
    scores = evaluate(stages, kubectl, kube.s3)
    return Group(summary(tuned, merged, learned, dialogue), *scores)


def summary(tuned: Object, merged: Object, learned: reward.Rewards, dialogue: str) -> str:
    checkpoint, plan = tuned["status"].get("checkpoint", {}), merged["status"]["plan"]
    fused = merged["status"]["output"]
    metrics = ", ".join(f"{each['name']} {each['value']}" for each in tuned["status"]["progress"].get("metrics", []))
    return (
        f"{escape(dialogue)}\n\n"
        f"tuned       {tuned['status']['output']['uri']}\n"
        f"checkpoint  step {checkpoint.get('step')}: {checkpoint.get('uri')}\n"
        f"metrics     {metrics}\n"
        f"fused       {fused['uri']}\n"
        f"            {plan['tensors']} tensors, {plan['inputBytes']} bytes read, {fused['digest']}\n"
        f"reward      {learned}\n"
        f"            {learned.plot}"
    )


def main(
    keep: Annotated[bool, typer.Option(help="Leave everything running.")] = False,
    provider: Annotated[str, typer.Option(help="embedded, kind or current")] = "embedded",
) -> None:
    """Train a tiny model on a real Kubernetes on this machine and ask it a question."""
    # `kill` and a closed terminal clean up like Ctrl-C.
    interrupt: Callable[..., Any] = signal.default_int_handler
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    stages = Stages()
    kube = cluster(provider, Console(stderr=True, style="dim"))
    code = 1
    try:
        shown = run(stages, kube)
        stages.console.print(
            Panel(shown, title="Pinnace", subtitle=f"{sum(stages.times.values()):.0f} s in all", expand=False)
        )
        code = 0
    except (ClusterError, ImageError, CommandError, TimeoutError, DemoFailed, openai.OpenAIError) as error:
        stages.console.print(f"[red]✗[/] {escape(str(error))}")
    except KeyboardInterrupt:
        stages.console.print("stopped")
    finally:
        if keep and code == 0:
            stages.console.print(
                f"export KUBECONFIG={kube.kubeconfig} PATH={BIN}:$PATH\n"
                f"kubectl -n {NAMESPACE} describe sft    # look around\n"
                f"{Path(sys.executable).parent}/pinnace cluster down    # when you have seen enough",
                soft_wrap=True,
            )
        else:
            with stages.stage("Take the cluster down"):
                kube.down()
    sys.exit(code)


if __name__ == "__main__":
    typer.run(main)
