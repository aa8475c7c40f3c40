"""What the gateway takes from a real API server, with the rights that docs/toolsandbox-contract.md §7 gives it."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pinnace.tools.gateway import load, source
from pinnace.tools.gateway.app import Gateway as InProcess
from pinnace.tools.gateway.app import Options
from pinnace.tools.gateway.auth import AUDIENCE
from pinnace.tools.gateway.kube import Kube

from e2e.apiserver import ApiServer
from e2e.faults.api import Api
from e2e.gateway.lab import Backend, Gateway, Lab, eventually, server
from e2e.gateway.sandboxes import Sandboxes, configuration, shell

READ = ["get", "list", "watch"]
RULES = [
    {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["tools-gateway"], "verbs": READ},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ},
]


@dataclass
class Team:
    """A namespace with the gateway's service account; `account` is the folder that a pod would have."""

    api: Api
    server: ApiServer
    namespace: str
    account: Path

    @property
    def env(self) -> dict[str, str]:
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.server.port),
            "PINNACE_SERVICE_ACCOUNT": str(self.account),
        }

    def token(self, audience: str = "") -> str:
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/tools-gateway/token"
        spec = {"audiences": [audience]} if audience else {}
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(self.api.create(path, asked)["status"]["token"])

    def configure(self, document: dict[str, Any]) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/tools-gateway"
        content = {"gateway.json": json.dumps({"version": 1, **document})}
        named = {"metadata": {"name": "tools-gateway"}, "data": content}
        self.api.apply(path, {"apiVersion": "v1", "kind": "ConfigMap", **named})


@pytest.fixture
def team(apiserver: ApiServer, tmp_path: Path) -> Team:
    api, name = Api(apiserver.kubeconfig), f"tools-{secrets.token_hex(4)}"
    account = tmp_path / "account"
    account.mkdir()
    (account / "namespace").write_text(name)
    (account / "ca.crt").write_bytes(apiserver.ca.pem)
    made = Team(api, apiserver, name, account)
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    rbac, meta = "rbac.authorization.k8s.io", {"metadata": {"name": "tools-gateway"}}
    api.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", **meta})
    subject = [{"kind": "ServiceAccount", "name": "tools-gateway", "namespace": name}]
    role = {"apiGroup": rbac, "kind": "Role", "name": "tools-gateway"}
    folder = f"/apis/{rbac}/v1/namespaces/{name}"
    api.create(f"{folder}/roles", {"apiVersion": f"{rbac}/v1", "kind": "Role", **meta, "rules": RULES})
    api.create(
        f"{folder}/rolebindings",
        {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", **meta, "subjects": subject, "roleRef": role},
    )
    reviewer = {"apiGroup": rbac, "kind": "ClusterRole", "name": "system:auth-delegator"}
    api.create(
        f"/apis/{rbac}/v1/clusterrolebindings",
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name}, "subjects": subject,
         "roleRef": reviewer},
    )  # fmt: skip
    (account / "token").write_text(made.token())
    return made


def in_force(gateway: Gateway, generation: int) -> float:
    began = time.monotonic()
    eventually("in force", lambda: gateway.metric("pinnace_tools_config_generation") == generation)
    return time.monotonic() - began


def test_a_changed_configmap_is_in_force_at_once(own: Lab, team: Team) -> None:
    backend = own.backend()
    team.configure({"generation": 1, "servers": []})
    gateway = own.gateway({}, configmap="tools-gateway", **team.env)
    in_force(gateway, 1)
    team.configure({"generation": 2, "servers": [server("plain", backend)]})
    took = in_force(gateway, 2)
    gateway.wait_tools("echo")
    assert gateway.call("echo", {"text": "x"})["outcome"] == "ok"
    print(f"\na changed ConfigMap was in force after {took:.2f} s")


def test_a_service_accounts_token_is_reviewed(own: Lab, team: Team, backend: Backend) -> None:
    team.configure({"generation": 1, "servers": [server("plain", backend)], "auth": {"mode": "ServiceAccount"}})
    gateway = own.gateway({}, configmap="tools-gateway", **team.env)
    in_force(gateway, 1)
    gateway.token = team.token(AUDIENCE)
    gateway.wait_tools("echo")
    assert gateway.call("echo", {"text": "x"})["outcome"] == "ok"
    eventually("audit", lambda: f'"tenant": "{team.namespace}:tools-gateway"' in gateway.audit.read_text())
    assert gateway.post("/call", {"name": "echo"}, token=team.token("someone-else")).status_code == 401


async def test_ready_endpoints_of_slices_are_followed(team: Team) -> None:
    kube = Kube(team.server.url, token=team.account / "token", ca=team.account / "ca.crt", namespace=team.namespace)
    path = f"/apis/discovery.k8s.io/v1/namespaces/{team.namespace}/endpointslices"

    def manifest(*, ready: bool) -> dict[str, Any]:
        target = {"kind": "Pod", "name": "pod-1", "namespace": team.namespace}
        endpoint = {"addresses": ["10.1.2.3"], "conditions": {"ready": ready}, "targetRef": target}
        labels = {"kubernetes.io/service-name": "tools-time-v1"}
        return {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "slice-1", "labels": labels}, "endpoints": [endpoint], "ports": [{"port": 8080}],
        }  # fmt: skip

    seen = source.endpoints(kube)
    async with asyncio.timeout(30):
        assert await anext(seen) == {}
        team.api.create(path, manifest(ready=True))
        assert await anext(seen) == {"tools-time-v1": {"10.1.2.3": "pod-1"}}
        team.api.apply(f"{path}/slice-1", manifest(ready=False))
        assert await anext(seen) == {}
    await seen.aclose()  # type: ignore[attr-defined]  # it is a generator
    await kube.close()


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[list[tuple[str, str, dict[str, Any]]]]:
    """An operator's address, and the reports that came: (path, token, body)."""
    reports: list[tuple[str, str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reports.append((self.path, self.headers["Authorization"], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    (tmp_path / "address").write_text(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    yield reports
    listener.shutdown()
    listener.server_close()
    thread.join()


def test_the_operator_hears_the_load(own: Lab, operator: list[tuple[str, str, dict[str, Any]]], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("projected")
    cold = {"name": "cold", "versions": [{"name": "v1"}], "scale": {"min": 0, "max": 2}}
    servers = [server("plain", own.backend()), cold]
    config = {"generation": 5, "name": "tools", "namespace": "team", "uid": "u-1", "servers": servers}
    env = {"PINNACE_PROGRESS_URL": (tmp_path / "address").read_text(), "PINNACE_POD": "pod-7"}
    gateway = own.gateway(config, **env, PINNACE_PROGRESS_TOKEN=str(tmp_path / "token"))
    gateway.wait_tools("echo")

    def latest() -> dict[str, Any]:
        return operator[-1][2]

    eventually("it is reported", lambda: operator and latest()["tools"] > 0)
    path, token, report = operator[-1]
    assert (path, token) == ("/v1/load", "Bearer projected")
    assert (report["kind"], report["uid"], report["pod"], report["generation"]) == ("ToolSandbox", "u-1", "pod-7", 5)
    states = {each["name"]: (each["state"], each["ready"]) for each in report["servers"]}
    assert states == {"plain": ("ready", 1), "cold": ("absent", 0)}


def test_the_operator_hears_of_tools_whose_last_calls_all_failed(
    own: Lab, operator: list[tuple[str, str, dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("projected")
    url, token = (tmp_path / "address").read_text(), str(tmp_path / "token")
    backend = own.backend()
    config = {"servers": [server("plain", backend)]}
    gateway = own.gateway(config, PINNACE_PROGRESS_URL=url, PINNACE_PROGRESS_TOKEN=token)
    gateway.wait_tools("echo")

    def unhealthy() -> list[tuple[str, str]]:
        return [(each["name"], each["outcome"]) for each in operator[-1][2]["unhealthyTools"]] if operator else []

    backend.stop()
    for _ in range(3):
        gateway.call("echo", {"text": "x"})
    eventually("it is unhealthy", lambda: unhealthy() == [("echo", "unavailable")])
    backend.start()
    gateway.configure({"generation": 2, "servers": [server("plain", backend)]})
    eventually("it works again", lambda: gateway.call("echo", {"text": "x"})["outcome"] == "ok")
    eventually("it is well", lambda: unhealthy() == [])


async def test_a_call_that_waits_for_a_server_at_zero_is_told_at_once(
    operator: list[tuple[str, str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_EVERY", 3600.0)  # so that what arrives was told for another reason than the time
    monkeypatch.setenv("PINNACE_PROGRESS_URL", (tmp_path / "address").read_text())
    (tmp_path / "token").write_text("projected")
    monkeypatch.setenv("PINNACE_PROGRESS_TOKEN", str(tmp_path / "token"))
    cold = {"name": "cold", "versions": [{"name": "v1"}], "scale": {"min": 0, "max": 2}}
    (tmp_path / "gateway.json").write_text(json.dumps({"version": 1, "servers": [cold]}))
    gateway = InProcess(Options(tmp_path / "gateway.json", host="127.0.0.1", port=0, tokens=tmp_path))
    await gateway.start()
    try:
        await gateway.control.configured.wait()
        await asyncio.to_thread(eventually, "the first report", lambda: operator)
        pool = gateway.state.pool("cold")
        call = asyncio.create_task(pool.acquire(["v1"], avoid=(), patience=1, cold_patience=60))
        told = lambda: [each["queued"] for each in operator[-1][2]["servers"]] == [1]  # noqa: E731
        await asyncio.to_thread(eventually, "the operator hears of the call", told)
        call.cancel()
    finally:
        await gateway.close()


def test_a_lease_is_held_while_the_operator_starts_its_sandbox(
    own: Lab, pool: Sandboxes, operator: list[tuple[str, str, dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("projected")
    env = {"PINNACE_PROGRESS_URL": (tmp_path / "address").read_text()}
    none = {"sessions": {"max": 2, "servers": ["shell"]}, "limits": {"maxQueueSeconds": 600}}
    gateway = own.gateway(none, **env, PINNACE_PROGRESS_TOKEN=str(tmp_path / "token"))

    def wanted() -> int:
        return int(operator[-1][2]["sessions"]["wanted"]) if operator else 0

    eventually("one is wanted, to learn the tools", lambda: wanted() == 1)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(gateway.post, "/sessions", {"count": 2})
        eventually("the operator hears of both", lambda: wanted() == 2)
        gateway.configure({**none, **configuration(pool[:2]), "generation": 2})
        given = asked.result()
    assert given.status_code == 201, given.text
    assert [shell(gateway, each, "echo here").strip() for each in given.json()["sessions"]] == ["here"] * 2
    eventually("nothing waits any more", lambda: wanted() == 0)
    assert gateway.post("/sessions").status_code == 429, "there may be no more: nobody waits for that"
