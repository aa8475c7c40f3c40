"""A ToolSandbox as its users see it: calls that outlive their servers, hot plug, leases, isolation, and bad input."""

from __future__ import annotations

import asyncio
import base64
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from pinnace.tools.client import GatewayRefused, Session, ToolClient

from e2e.gateway.client import official
from e2e.kube import Kubectl, Object, condition
from e2e.scenarios.conftest import Platform
from e2e.scenarios.pods import send_signal

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NAME = "tools"
SERVERS: list[Object] = [
    {"name": "time", "catalogue": "time", "versions": [{"name": "v1", "replicas": 2}]},
    {"name": "calculator", "catalogue": "calculator"},
]
NOW = ("get_current_time", {"timezone": "UTC"})


@dataclass(frozen=True)
class Sandbox:
    """One ToolSandbox in a namespace of its own, reached by the address of its Service."""

    kubectl: Kubectl

    def apply(self, *servers: Object, **spec: Any) -> None:
        self.kubectl.apply(
            {
                "apiVersion": "pinnace.dev/v1alpha1", "kind": "ToolSandbox", "metadata": {"name": NAME},
                "spec": {"servers": list(servers), "sessions": {"warm": 2, "max": 8, "workspaceMiB": 32}, **spec},
            }
        )  # fmt: skip

    @property
    def status(self) -> Object:
        found: Object = (self.kubectl.get("toolsandbox", NAME) or {}).get("status", {})
        return found

    def until(self, what: str, fact: Any, timeout: float = 300, poll: float = 0.5) -> Any:
        """Waits until `fact(status)` is true; a TimeoutError shows the status."""
        try:
            return self.kubectl.wait(what, lambda: fact(self.status), timeout, poll)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.status}") from None

    def until_complete(self, servers: int, free: int = 2) -> None:
        def complete(status: Object) -> bool:
            ready = [each for each in status.get("servers", []) if each["state"] == "Ready"]
            return len(ready) == servers and status.get("sessions", {}).get("free", 0) >= free

        self.until(f"{servers} servers and {free} sandboxes", complete)

    @property
    def url(self) -> str:
        return f"http://{(self.kubectl.get('service', NAME) or {})['spec']['clusterIP']}:8080"

    @property
    def token(self) -> str:
        return base64.b64decode((self.kubectl.get("secret", f"{NAME}-tokens") or {})["data"]["default"]).decode()

    def client(self) -> ToolClient:
        return ToolClient(self.url, token=self.token)

    def pods(self, role: str, *labels: str) -> list[Object]:
        return self.kubectl.list("pods", ",".join([f"pinnace.dev/name={NAME}", f"pinnace.dev/role={role}", *labels]))


@pytest.fixture(scope="module")
def sandbox(platform: Platform) -> Iterator[Sandbox]:
    made = Sandbox(platform.namespace())
    made.apply(*SERVERS)
    made.until_complete(len(SERVERS))
    yield made
    made.kubectl.run("delete", "namespace", made.kubectl.namespace, "--wait=false")


@dataclass
class Load:
    """Calls in a loop; what came back by outcome."""

    outcomes: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return self.outcomes.total()


@asynccontextmanager
async def load(client: ToolClient, call: tuple[str, Object], tasks: int = 8) -> AsyncIterator[Load]:
    """Runs calls for the length of the block."""
    seen, stop = Load(), asyncio.Event()

    async def one() -> None:
        while not stop.is_set():
            result = await client.call(*call, timeout_seconds=30)
            seen.outcomes[str(result.outcome)] += 1
            if result.error:
                seen.messages.append(result.error.message)
            await asyncio.sleep(0.02)

    running = [asyncio.create_task(one()) for _ in range(tasks)]
    try:
        yield seen
    finally:
        stop.set()
        await asyncio.gather(*running)


@pytest.mark.parametrize("era", ["2026-07-28", "legacy"])
async def test_an_official_client_lists_and_calls(sandbox: Sandbox, era: str) -> None:
    async with official(sandbox.url, sandbox.token, era) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"get_current_time", "calculate", "python", "shell"} <= names
        result = await client.call_tool("calculate", {"expression": "6*7"})
        assert result.content[0].text == "42"  # type: ignore[union-attr]


async def test_no_call_is_lost_when_replicas_are_killed(sandbox: Sandbox) -> None:
    async with sandbox.client() as client, load(client, NOW) as seen:
        for pod in await asyncio.to_thread(sandbox.pods, "server", "pinnace.dev/server=time"):
            before = seen.calls
            assert await asyncio.to_thread(send_signal, pod["metadata"]["name"], signal.SIGKILL) > 0
            await asyncio.sleep(4)
            assert seen.calls > before
            await asyncio.to_thread(sandbox.until_complete, len(SERVERS))
    print(f"both replicas killed, one after the other: {dict(seen.outcomes)}")
    assert set(seen.outcomes) == {"ok"}, seen.messages[:5]


async def test_servers_come_go_and_change_under_load_without_a_failed_call(sandbox: Sandbox) -> None:
    other = {"name": "other", "catalogue": "calc"}
    two = {**SERVERS[0], "versions": [{"name": "v1", "weight": 50, "replicas": 1}, {"name": "v2", "weight": 50}]}
    turned = {**SERVERS[0], "versions": [{"name": "v2", "replicas": 2}]}
    async with sandbox.client() as client, load(client, NOW) as seen:
        for title, servers in [
            ("add a server", [*SERVERS, other]),
            ("add a version", [two, *SERVERS[1:], other]),
            ("take the first version away", [turned, *SERVERS[1:], other]),
            ("remove a server", [turned, *SERVERS[1:]]),
            ("back", SERVERS),
        ]:
            began = time.monotonic()
            await asyncio.to_thread(sandbox.apply, *servers)
            await asyncio.to_thread(reached, sandbox)
            print(f"{title}: at the gateway after {time.monotonic() - began:.1f} s")
            wanted = sum(len(each.get("versions", [0])) for each in servers)
            await asyncio.to_thread(sandbox.until_complete, wanted)
        names = {tool["function"]["name"] for tool in await client.tools()}
    print(f"hot plug under load: {dict(seen.outcomes)}")
    assert set(seen.outcomes) == {"ok"}, seen.messages[:5]
    assert "get_current_time" in names
    assert "hash" not in names


def reached(sandbox: Sandbox) -> None:
    """Waits until the gateway works with the newest generation."""
    generation = (sandbox.kubectl.get("toolsandbox", NAME) or {})["metadata"]["generation"]
    line = f"pinnace_tools_config_generation {float(generation)}"

    def in_force() -> bool:
        return line in httpx.get(f"{sandbox.url}/metrics", trust_env=False).text.splitlines()

    sandbox.kubectl.wait("the gateway's configuration", in_force, 30, 0.1)


async def test_a_server_that_cannot_start_does_not_take_the_others_down(sandbox: Sandbox) -> None:
    absent = {"name": "absent", "image": "localhost/pinnace/none:1", "transport": "Http", "port": 9000}
    await asyncio.to_thread(sandbox.apply, *SERVERS, absent)

    def says_so(status: Object) -> Object | None:
        named = (each for each in status["servers"] if each["name"] == "absent")
        return next((each for each in named if each["reason"] == "ImagePullFailed"), None)

    told = await asyncio.to_thread(sandbox.until, "the reason", says_so)
    assert "localhost/pinnace/none:1" in told["message"]
    assert condition({"status": sandbox.status}, "Ready")["status"] == "True"
    async with sandbox.client() as client:
        assert (await client.call(*NOW)).outcome == "ok"
    await asyncio.to_thread(sandbox.apply, *SERVERS)
    await asyncio.to_thread(sandbox.until_complete, len(SERVERS))


ISOLATED = """
import os, socket
print(os.getuid() > 1000, sorted(os.listdir('/workspace')), [each for each in os.environ if 'KUBERNETES' in each])
print(os.path.exists('/var/run/secrets'), os.path.exists('/var/run/pinnace'))
for target in {targets}:
    try:
        socket.create_connection(target, timeout=2)
    except OSError as error:
        print('refused', target)
    else:
        print('BREACH', target)
"""


def neighbours(sandbox: Sandbox) -> list[tuple[str, int]]:
    """What untrusted code must not reach: the API server, S3, DNS, the gateway, the agents of all sandboxes."""
    found = [(pod["status"]["podIP"], 8080) for pod in sandbox.pods("session")]
    services = {"default": "kubernetes", "pinnace-storage": "s3", "kube-system": "kube-dns"}
    for namespace, name in {**services, sandbox.kubectl.namespace: NAME}.items():
        spec = (Kubectl(sandbox.kubectl.kubeconfig, namespace).get("service", name) or {})["spec"]
        found.append((spec["clusterIP"], spec["ports"][0]["port"]))
    return found


async def test_a_trajectory_has_a_sandbox_of_its_own(sandbox: Sandbox) -> None:
    targets = await asyncio.to_thread(neighbours, sandbox)
    async with sandbox.client() as client:
        began = time.monotonic()
        first, second = await client.lease(2, env={"SEED": "7"})
        print(f"2 leases: {(time.monotonic() - began) * 1e3:.0f} ms")
        await first.call("write_file", {"path": "mine.txt", "content": "x"})
        assert text(await first.call("shell", {"command": "ls /workspace; echo $SEED"})).split()[:2] == [
            "mine.txt",
            "7",
        ]
        assert "mine.txt" not in text(await second.call("shell", {"command": "ls /workspace"}))
        await first.call("python", {"code": "kept = 41"})
        assert text(await first.call("python", {"code": "print(kept + 1)"})) == "42"
        assert (await second.call("python", {"code": "print(kept)"})).outcome == "tool_error"
        told = text(await second.call("python", {"code": ISOLATED.format(targets=targets)}))
        assert told.splitlines()[:2] == ["True [] []", "False False"], told
        assert told.count("refused") == len(targets) > 5, told
        await first.end()
        await second.end()
        with pytest.raises(GatewayRefused) as late:
            await first.reset()
        assert late.value.status in (401, 404)


def text(result: Any) -> str:
    return "\n".join(each.get("text", "") for each in result.content).strip()


async def test_a_fork_bomb_ends_in_its_own_sandbox(sandbox: Sandbox) -> None:
    async with sandbox.client() as client:
        attacker, neighbour = await client.lease(2)
        try:
            bomb = await attacker.call("shell", {"command": ":(){ :|:& };:; sleep 3"}, timeout_seconds=30)
            assert bomb.outcome in ("ok", "tool_error", "timeout")
            assert text(await neighbour.call("python", {"code": "print(6 * 7)"})) == "42"
            memory = await attacker.call("python", {"code": "x = bytearray(4 << 30)"}, timeout_seconds=30)
            assert memory.outcome == "tool_error"
            assert text(await neighbour.call("python", {"code": "print(6 * 7)"})) == "42"
            await attacker.reset()
            assert text(await attacker.call("python", {"code": "print(6 * 7)"})) == "42"
        finally:
            await attacker.end()
            await neighbour.end()


async def test_leases_outlive_a_killed_gateway(sandbox: Sandbox) -> None:
    async with sandbox.client() as client:
        (lease,) = await client.lease()
        assert text(await lease.call("python", {"code": "kept = 41; print('ok')"})) == "ok"
        (gateway,) = await asyncio.to_thread(sandbox.pods, "gateway")
        assert await asyncio.to_thread(send_signal, gateway["metadata"]["name"], signal.SIGKILL) > 0
        result = await patiently(lease, "python", {"code": "print(kept + 1)"})
        assert text(result) == "42", result
        await lease.end()


async def patiently(client: Session, name: str, arguments: Object, seconds: float = 60) -> Any:
    """Calls until an answer is not the infrastructure's."""
    deadline = time.monotonic() + seconds
    while True:
        result = await client.call(name, arguments, timeout_seconds=10)
        if not result.outcome.infrastructure or time.monotonic() > deadline:
            return result
        await asyncio.sleep(0.5)


def counts(status: Object) -> tuple[int, int]:
    """(leased, free) sandboxes."""
    return status["sessions"]["armed"], status["sessions"]["free"]


async def test_the_warm_pool_follows_kubectl_scale(sandbox: Sandbox) -> None:
    await asyncio.to_thread(sandbox.kubectl.run, "scale", f"toolsandbox/{NAME}", "--replicas=3")
    await asyncio.to_thread(sandbox.until_complete, len(SERVERS), 3)
    async with sandbox.client() as client:
        leases = await client.lease(3, patience=30)
        with pytest.raises(GatewayRefused) as refused:
            await client.lease(8)
        assert refused.value.status == 429
        # The pool fills up again while those are out.
        await asyncio.to_thread(sandbox.until, "more sandboxes", lambda status: counts(status) == (3, 3))
        for lease in leases:
            await lease.end()
    await asyncio.to_thread(sandbox.apply, *SERVERS)


async def test_a_server_at_zero_starts_with_the_first_call_and_the_call_is_held(sandbox: Sandbox) -> None:
    lazy = {"name": "lazy", "catalogue": "calc", "scale": {"minReplicas": 0, "maxReplicas": 1, "cooldownSeconds": 10}}
    await asyncio.to_thread(sandbox.apply, *SERVERS, lazy)
    state = "AtZero"
    await asyncio.to_thread(
        sandbox.until, "nothing to run",
        lambda status: any(each["name"] == "lazy" and each["state"] == state for each in status["servers"]),
    )  # fmt: skip
    async with sandbox.client() as client:
        began = time.monotonic()
        result = await client.call("hash", {"input": "x", "algorithm": "md5"}, timeout_seconds=60)
        print(f"first call of a server at zero: {time.monotonic() - began:.1f} s, {result.outcome}")
        assert result.outcome == "ok", result
    await asyncio.to_thread(sandbox.apply, *SERVERS)


async def test_replicas_follow_the_calls_in_flight(sandbox: Sandbox) -> None:
    scale = {"minReplicas": 1, "maxReplicas": 3, "targetInFlight": 2, "cooldownSeconds": 10}
    await asyncio.to_thread(sandbox.apply, *SERVERS, {"name": "slow", "catalogue": "everything", "scale": scale})
    await asyncio.to_thread(sandbox.until_complete, len(SERVERS) + 1)

    def desired(status: Object) -> int:
        return next(int(each["desired"]) for each in status["servers"] if each["name"] == "slow")

    operation = ("trigger-long-running-operation", {"duration": 3, "steps": 1})
    async with sandbox.client() as client:
        async with load(client, operation) as seen:
            await asyncio.to_thread(sandbox.until, "three replicas", lambda status: desired(status) == 3)
            await asyncio.to_thread(sandbox.until_complete, len(SERVERS) + 1)
        await asyncio.to_thread(sandbox.until, "one replica", lambda status: desired(status) == 1)
    print(f"1 → 3 → 1 replicas: {dict(seen.outcomes)}")
    assert set(seen.outcomes) == {"ok"}, seen.messages[:5]
    await asyncio.to_thread(sandbox.apply, *SERVERS)


async def test_a_gateway_that_goes_ends_what_it_began(sandbox: Sandbox) -> None:
    await asyncio.to_thread(sandbox.apply, *SERVERS, gateway={"replicas": 2})
    await asyncio.to_thread(sandbox.until, "two gateways", lambda status: status["gateway"]["ready"] == 2)
    async with sandbox.client() as client, load(client, NOW) as seen:
        for pod in await asyncio.to_thread(sandbox.pods, "gateway"):
            await asyncio.to_thread(sandbox.kubectl.run, "delete", "pod", pod["metadata"]["name"])
            await asyncio.to_thread(sandbox.until, "two gateways", lambda status: status["gateway"]["ready"] == 2)
    print(f"both gateways deleted, one after the other: {dict(seen.outcomes)}")
    assert set(seen.outcomes) == {"ok"}, seen.messages[:5]
    await asyncio.to_thread(sandbox.apply, *SERVERS)


async def test_strangers_are_refused(sandbox: Sandbox) -> None:
    async with ToolClient(sandbox.url, token="wrong") as stranger:
        assert (await stranger.call(*NOW)).outcome == "denied"
        with pytest.raises(GatewayRefused) as refused:
            await stranger.lease()
        assert refused.value.status == 401
    async with sandbox.client() as client:
        result = await client.call("get_current_tme", {})
        assert result.outcome == "invalid_arguments"
        assert "get_current_time" in result.error.message  # type: ignore[union-attr]
