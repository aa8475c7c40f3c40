"""The objects that are built for a ToolSandbox: configuration, isolation, rights."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pinnace_operator.reconcile.plan import OperatorSettings, StorageDefaults

from e2e.simulation.decide import decide
from e2e.simulation.objects import Object
from e2e.simulation.toolsandbox import toolsandbox

SAMPLES = Path(__file__).parents[2] / "crds" / "samples"
SETTINGS = OperatorSettings(
    image_registry="registry.example.com", image_tag="1.2.3", progress_url="https://op:8443", progress_ca="PEM",
    storage=StorageDefaults(endpoint="http://s3.example.com:8333", bucket="everyone"),
)  # fmt: skip
CANARY: Object = yaml.safe_load((SAMPLES / "toolsandbox-canary.yaml").read_text())
Children = dict[tuple[str, str], Object]


def built(resource: Object, **facts: Any) -> Children:
    children = decide(resource, settings=SETTINGS, **facts).children
    return {(each["kind"], each["metadata"]["name"]): dict(each) for each in children}


def sample(**spec: Any) -> Object:
    found = toolsandbox("tools-canary", **{**CANARY["spec"], **spec})
    found["metadata"]["generation"] = 7
    return found


def document(children: Children, name: str = "tools-canary") -> Object:
    found: Object = json.loads(children["ConfigMap", f"{name}-gateway"]["data"]["gateway.json"])
    return found


def pod_spec(children: Children, deployment: str) -> Object:
    found: Object = children["Deployment", deployment]["spec"]["template"]["spec"]
    return found


def test_the_configuration_is_that_of_the_contract() -> None:
    found = document(built(sample()))
    assert (found["version"], found["generation"], found["name"], found["auth"]) == (
        1,
        7,
        "tools-canary",
        {"mode": "Token"},
    )
    web = next(each for each in found["servers"] if each["name"] == "web")
    assert web["versions"] == [
        {"name": "v1", "weight": 90, "service": "tools-canary-web-v1", "port": 8080, "path": "/mcp"},
        {"name": "v2", "weight": 10, "service": "tools-canary-web-v2", "port": 8080, "path": "/mcp"},
    ]
    assert web["scale"] == {"min": 1, "max": 8, "targetInFlight": 8}
    mine = next(each for each in found["servers"] if each["name"] == "mine")
    assert (mine["versions"][0]["port"], mine["scale"]["min"], mine["scale"]["max"]) == (9000, 1, 1)
    search = next(each for each in found["tools"] if each["server"] == "web")
    assert search["backups"] == [
        {"tool": "search_wikipedia", "argumentMapping": {"query": "$.q", "limit": 5},
         "resultMapping": {"text": "$.structuredContent.result"}},
    ]  # fmt: skip
    assert (search["alias"], search["timeoutSeconds"], search["rateLimit"]) == (
        "web_search",
        30,
        {"perSecond": 50, "burst": 100},
    )
    assert found["sessions"]["service"] == "tools-canary-session"
    assert found["sessions"]["servers"] == ["files", "python", "shell"]
    assert "results" not in found, "bucket and prefix may be in the namespace's Secret, which the operator never reads"


def test_the_order_of_the_spec_does_not_matter() -> None:
    spec = CANARY["spec"]
    turned = sample(servers=spec["servers"][::-1], tools=spec["tools"][::-1])
    name = ("ConfigMap", "tools-canary-gateway")
    assert built(turned)[name] == built(sample())[name]
    assert built(sample())[name]["metadata"]["annotations"]["pinnace.dev/content-hash"].startswith("sha256:")


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ("$.a[0].b", "$.a[0].b"), ("news", "news"), ("5", 5), ("true", True), ('"5"', "5"), ("[1]", [1]),
        ("NaN", "NaN"), ("", ""),
    ],
)  # fmt: skip
def test_literals_of_mappings(value: str, becomes: Any) -> None:
    tools = [{"name": "web.search", "backups": [{"tool": "b", "argumentMapping": {"x": value}}]}]
    assert document(built(sample(tools=tools)))["tools"][0]["backups"][0]["argumentMapping"] == {"x": becomes}


def test_what_runs_in_each_pod() -> None:
    children = built(sample())
    first = {name: pod_spec(children, name)["containers"][0] for kind, name in children if kind == "Deployment"}
    ours = ["pinnace", "tools", "serve"]
    assert first["tools-canary-web-v1"]["image"] == "registry.example.com/pinnace/tools:1.2.3"
    assert first["tools-canary-web-v2"]["image"] == "registry.example.com/pinnace/tools:0.2.0"
    assert (first["tools-canary-web-v1"]["command"], first["tools-canary-web-v1"]["args"][-1]) == (ours, "web")
    assert first["tools-canary-script-v1"]["args"][-4:] == ["--", "python", "-m", "my_server"]
    assert "command" not in first["tools-canary-mine-v1"], "the image's own entry point"
    assert first["tools-canary-mine-v1"]["readinessProbe"]["tcpSocket"] == {"port": "http"}
    assert first["tools-canary-web-v1"]["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert first["tools-canary-gateway"]["args"][:2] == ["--configmap", "tools-canary-gateway"]
    env = {each["name"]: each.get("value") for each in first["tools-canary-web-v1"]["env"]}
    assert (env["PINNACE_SERVER_ENV"], env["PINNACE_INTERNET"]) == ("PINNACE_SEARCH_PROVIDERS,*", "allowed")
    assert first["tools-canary-web-v1"]["envFrom"] == [{"secretRef": {"name": "search-keys"}}]


def test_updates_and_ends_lose_no_call() -> None:
    for (kind, _), each in built(sample()).items():
        if kind != "Deployment":
            continue
        assert each["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        pod = each["spec"]["template"]["spec"]
        assert pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] >= 1
    gateway = pod_spec(built(sample(tools=[{"name": "web.search", "timeoutSeconds": 300}])), "tools-canary-gateway")
    assert gateway["terminationGracePeriodSeconds"] > 300, "the longest call ends before the pod"


def test_every_pod_is_hardened() -> None:
    for (kind, name), each in built(sample()).items():
        if kind != "Deployment":
            continue
        pod = each["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is (name == "tools-canary-gateway")
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for container in pod["containers"]:
            security = container["securityContext"]
            assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_untrusted_code_gets_no_secret_no_token_and_a_user_of_its_own() -> None:
    pod = pod_spec(built(sample()), "tools-canary-session")
    agent, sandbox = pod["containers"]
    assert (agent["name"], sandbox["name"]) == ("agent", "sandbox")
    assert (agent["securityContext"]["runAsUser"], sandbox["securityContext"]["runAsUser"]) == (65532, 65533)
    secrets = {each["name"] for each in pod["volumes"] if "secret" in each or "projected" in each}
    assert not secrets & {each["name"] for each in sandbox["volumeMounts"]}
    assert secrets & {each["name"] for each in agent["volumeMounts"]}
    assert not {"env", "envFrom", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "ports"} & {
        name for name, value in sandbox.items() if value
    }
    mounts = [{each["mountPath"]: each for each in one["volumeMounts"]} for one in (agent, sandbox)]
    assert mounts[0].keys() & mounts[1].keys() == {"/run/sandbox", "/tmp"}
    assert mounts[1]["/run/sandbox"]["readOnly"] is True
    assert "fsGroup" not in pod["securityContext"], "no group that both are in"
    tmp = {each["name"] for one in pod["containers"] for each in one["volumeMounts"] if each["mountPath"] == "/tmp"}
    assert len(tmp) == 2, "each has a /tmp of its own"
    workspace = next(each for each in pod["volumes"] if each["name"] == "workspace")
    assert workspace["emptyDir"] == {"medium": "Memory", "sizeLimit": "256Mi"}
    assert (pod["shareProcessNamespace"], pod["runtimeClassName"]) == (False, "gvisor")


def _policy(children: Children, name: str) -> Object:
    found: Object = children["NetworkPolicy", name]["spec"]
    assert found["policyTypes"] == ["Ingress", "Egress"]
    return found


def test_nobody_talks_to_anybody_unless_said() -> None:
    children = built(sample())
    everything = _policy(children, "tools-canary-default")
    assert everything["podSelector"]["matchLabels"].keys() == {"pinnace.dev/uid"}
    assert (everything["ingress"], everything["egress"]) == ([], [])

    session = _policy(children, "tools-canary-session")
    assert session["egress"] == [], "not even DNS"
    (allowed,) = session["ingress"]
    assert allowed["from"][0]["podSelector"]["matchLabels"]["pinnace.dev/role"] == "gateway"

    script = _policy(children, "tools-canary-script")
    assert [port["port"] for port in script["egress"][0]["ports"]] == [53, 53]
    assert len(script["egress"]) == 1
    web = _policy(children, "tools-canary-web")
    assert web["egress"][1] == {
        "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}],
        "ports": [{"protocol": "TCP", "port": 443}],
    }
    gateway = _policy(children, "tools-canary-gateway")
    anywhere = [rule for rule in gateway["egress"] if "to" not in rule]
    assert {port["port"] for rule in anywhere for port in rule["ports"]} == {53, 443, 6443, 8333, 8443}
    (servers,) = [rule for rule in gateway["egress"] if "to" in rule and "server" in str(rule["to"])]
    assert {port["port"] for port in servers["ports"]} == {8080, 9000}


def test_a_sandbox_with_an_allow_list_may_ask_dns() -> None:
    sessions = {"egress": [{"cidr": "10.0.0.0/8"}]}
    policy = _policy(built(sample(sessions=sessions)), "tools-canary-session")
    assert len(policy["egress"]) == 2
    assert pod_spec(built(sample(sessions=sessions)), "tools-canary-session")["containers"][1]["args"] == ["--network"]


@pytest.mark.parametrize(
    ("cidr", "internet"),
    [
        ("10.0.0.0/8", "denied"),
        ("0.0.0.0/0", "allowed"),
        ("8.8.8.8/32", "allowed"),
        ("fd00::/8", "denied"),
        ("::/0", "allowed"),
    ],
)
def test_servers_know_whether_they_reach_the_internet(cidr: str, internet: str) -> None:
    servers = [{"name": "time", "catalogue": "time", "egress": [{"cidr": cidr}]}]
    container = pod_spec(built(toolsandbox(servers=servers)), "tools-time-v1")["containers"][0]
    assert {"name": "PINNACE_INTERNET", "value": internet} in container["env"]


def test_secrets_are_asked_for_and_never_built() -> None:
    plan = decide(toolsandbox(sessions={}))
    assert {(each.name, each.keys) for each in plan.secrets} == {
        ("tools-keys", ("key",)),
        ("tools-tokens", ("default",)),
    }
    named = decide(sample())
    assert {each.name for each in named.secrets} == {"tools-canary-keys"}, "agents' tokens are in a Secret of the user"


def test_decisions_import_nothing_random() -> None:
    for path in (Path(__file__).parents[2] / "operator/pinnace_operator").glob("[rb]*/*.py"):
        if path.parent.name == "runtime":
            continue
        tree = ast.parse(path.read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not names & {"random", "secrets", "time", "uuid"}, path


def test_a_server_in_sessions_has_no_pods_of_its_own() -> None:
    servers = [{"name": "db", "catalogue": "sqlite", "isolation": "Session"}]
    children = built(toolsandbox(servers=servers, sessions={"servers": ["shell"]}))
    assert {name for kind, name in children if kind == "Deployment"} == {"tools-gateway", "tools-session"}
    found = document(children, "tools")
    assert found["sessions"]["servers"] == ["shell", "sqlite"]
    assert found["servers"][0]["versions"][0]["service"] == "tools-session"


def test_a_server_of_the_catalogue_in_sessions_is_run_by_the_executor() -> None:
    servers = [{"name": "db", "catalogue": "sqlite", "isolation": "Session"}]
    sessions = {"servers": ["shell", "memory"], "egress": [{"cidr": "0.0.0.0/0"}]}
    children = built(toolsandbox(servers=servers, sessions=sessions))
    agent, sandbox = pod_spec(children, "tools-session")["containers"]
    assert agent["args"][:2] == ["--servers", "memory,shell,sqlite"]
    assert sandbox["args"] == ["--network", "--servers", "memory,sqlite"]
    assert {"name": "PINNACE_INTERNET", "value": "allowed"} in agent["env"]
    assert not sandbox.get("env")
    assert document(children, "tools")["servers"][0]["catalogue"] == "sqlite"


def test_names_of_one_server_are_never_those_of_another() -> None:
    """`a` + `b-c` and `a-b` + `c` would be the same, so versions have no dash."""
    servers = [{"name": "a-b", "catalogue": "calc", "versions": [{"name": "c"}]}, {"name": "a", "catalogue": "calc"}]
    names = [name for kind, name in built(toolsandbox(servers=servers)) if kind == "Deployment"]
    assert len(names) == len(set(names)) == 3
