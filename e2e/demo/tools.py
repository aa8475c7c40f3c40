"""The demo's tools: a ToolSandbox, and an unmodified MCP client that calls it while a server's pods are killed."""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from rich.table import Table

from e2e.demo.stages import Report
from e2e.gateway.client import official
from e2e.kube import Kubectl, Object

SAMPLE = Path(__file__).parents[2] / "crds" / "samples" / "toolsandbox-demo.yaml"
CALLS: tuple[tuple[str, Object], ...] = (
    ("search", {"query": "river"}),
    ("calculate", {"expression": "31*47"}),
    ("get_current_time", {"timezone": "Europe/Berlin"}),
    ("convert_units", {"value": 42.195, "from_unit": "km", "to_unit": "mile"}),
    ("web_search", {"query": "lighthouse"}),
)
"""`web_search` has no provider without the internet: its backup, the search of the offline world, answers."""
SHOWN = ("pinnace_tools_calls_total{", "pinnace_tools_failovers_total{", "pinnace_tools_retries_total{")
Call = tuple[str, str, float, str]


@dataclass(frozen=True)
class Used:
    """How many tools a client saw, its calls (tool, outcome, milliseconds, answer), and what the gateway counted."""

    tools: int
    calls: list[Call]
    metrics: list[str]


def start(kubectl: Kubectl) -> Object:
    """Applies the sample and returns it."""
    kubectl.run("apply", "-f", str(SAMPLE))
    made: Object = yaml.safe_load(SAMPLE.read_text())
    return made


def until_ready(kubectl: Kubectl, sandbox: Object, report: Report) -> None:
    """Until every server of the ToolSandbox serves and a sandbox is free."""
    name, servers = sandbox["metadata"]["name"], len(sandbox["spec"]["servers"])

    def complete() -> bool:
        status: Object = (kubectl.get("toolsandbox", name) or {}).get("status", {})
        # A server that scales to zero may be there already: its first call starts it.
        ready = sum(each["state"] in ("Ready", "AtZero") for each in status.get("servers", []))
        report(f"{ready}/{servers} servers, {status.get('tools', 0)} tools")
        return bool(ready == servers and status["sessions"]["free"])

    kubectl.wait("the tools", complete, timeout=600, poll=1)


def use(kubectl: Kubectl, name: str) -> Used:
    """Five calls; before the first and the last a pod of the server that answers them is deleted by force."""
    token = base64.b64decode((kubectl.get("secret", f"{name}-tokens") or {})["data"]["default"]).decode()
    with kubectl.port_forward(f"service/{name}", 8080) as address:
        tools, calls = asyncio.run(_calls(kubectl, name, f"http://{address}", token))
        lines = httpx.get(f"http://{address}/metrics", trust_env=False).text.splitlines()
    return Used(tools, calls, [line for line in lines if line.startswith(SHOWN) and not line.endswith(" 0.0")])


async def _calls(kubectl: Kubectl, name: str, url: str, token: str) -> tuple[int, list[Call]]:
    calls: list[Call] = []
    async with official(url, token) as client:
        tools = len((await client.list_tools()).tools)
        for number, (tool, arguments) in enumerate(CALLS):
            if number in (0, len(CALLS) - 1):
                await asyncio.to_thread(kill_one, kubectl, name, "world")
            began = time.monotonic()
            result = await client.call_tool(tool, arguments)
            text = next((each.text for each in result.content if each.type == "text"), "")
            outcome = str((result.meta or {}).get("pinnace.dev/outcome", "tool_error" if result.is_error else "ok"))
            calls.append((tool, outcome, (time.monotonic() - began) * 1e3, " ".join(text.split())[:60]))
    return tools, calls


def kill_one(kubectl: Kubectl, name: str, server: str) -> None:
    """Deletes one pod of a server by force: it vanishes without a word."""
    selector = f"pinnace.dev/name={name},pinnace.dev/server={server}"
    pod = kubectl.list("pods", selector)[0]["metadata"]["name"]
    kubectl.run("delete", "pod", pod, "--force", "--grace-period=0")


def table(used: Used) -> Table:
    made = Table(
        "tool", "outcome", "ms", "answer", title=f"{used.tools} tools; a pod of `world` killed twice meanwhile"
    )
    for tool, outcome, milliseconds, text in used.calls:
        made.add_row(tool, outcome, f"{milliseconds:.0f}", text)
    return made
