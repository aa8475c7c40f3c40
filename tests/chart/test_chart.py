"""What an installation consists of, and what it may do."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pinnace_operator.builders import gateway
from pinnace_operator.builders.identity import Identity
from pinnace_operator.runtime.settings import PREFIX, Settings, load

from e2e.apiserver import BIN, ApiServer
from e2e.kube import Kubectl

Object = dict[str, Any]
Render = Callable[..., Any]
REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "pinnace"
EVERYTHING: Object = {
    "replicas": 2, "serviceMonitor": {"enabled": True, "interval": "30s", "labels": {"release": "prom"}},
    "networkPolicy": {"enabled": True, "egressPorts": [6443]}, "settings": {"workers": 8},
    "storage": {"endpoint": "https://s3.example.com", "bucket": "pinnace", "prefix": "p", "region": "r"},
    "image": {"registry": "r.example.com", "tag": "9", "pullPolicy": "Always", "pullSecrets": ["login"]},
    "toolGateways": [{"namespace": "team", "name": "tools"}], "gatewayEgressPorts": [443],
    "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "high",
    "podAnnotations": {"note": "x"}, "serviceAccount": {"annotations": {"note": "x"}}, "affinity": {"nodeAffinity": {}},
}  # fmt: skip


def container(rendered: Any) -> Object:
    found: Object = rendered.one("Deployment")["spec"]["template"]["spec"]["containers"][0]
    return found


def settings(rendered: Any) -> Settings:
    """What the operator reads of the rendered environment."""
    environment = {each["name"]: each.get("value", "from-the-pod") for each in container(rendered)["env"]}
    return load({name: value for name, value in environment.items() if name.startswith(PREFIX)})


def rules(role: Object) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield group, resource, tuple(rule.get("resourceNames", ())), verb


def test_lint_finds_nothing() -> None:
    subprocess.run([BIN / "helm", "lint", "--strict", CHART], check=True, capture_output=True)


def test_the_default_installation(render: Render) -> None:
    assert render().kinds() == [
        "ClusterRole", "ClusterRole", "ClusterRole", "ClusterRoleBinding", *5 * ["CustomResourceDefinition"],
        "Deployment", "NetworkPolicy", "Role", "RoleBinding", "Service", "ServiceAccount",
    ]  # fmt: skip


def test_the_operator_understands_the_environment_that_the_chart_sets(render: Render) -> None:
    plain, full = settings(render()), settings(render(**EVERYTHING, watchNamespaces=["a", "b"], noProgressSeconds=60))
    assert (plain.watch_namespaces, plain.image_registry, plain.image_tag) == ((), "localhost", "0.1.0")
    assert plain.pods_progress_url == "https://pinnace-operator.from-the-pod.svc:8443"
    assert (full.watch_namespaces, full.workers, full.no_progress_seconds) == (("a", "b"), 8, 60)
    assert (full.image_registry, full.image_tag, full.image_pull_policy) == ("r.example.com", "9", "Always")
    assert (plain.gateway_egress_ports, full.gateway_egress_ports) == ((443, 6443), (443,))
    storage = (full.storage_endpoint, full.storage_bucket, full.storage_prefix, full.storage_region)
    assert storage == ("https://s3.example.com", "pinnace", "p", "r")


def test_the_ports_are_those_that_the_operator_listens_on(render: Render) -> None:
    rendered, defaults = render(), Settings()
    ports = {each["name"]: each["containerPort"] for each in container(rendered)["ports"]}
    assert ports == {"http": defaults.http_port, "progress": defaults.progress_port}
    service = {each["name"]: each["port"] for each in rendered.one("Service")["spec"]["ports"]}
    assert service == ports


def test_the_operators_pod_is_hardened(render: Render) -> None:
    pod = render().one("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert pod["containers"][0]["resources"]["limits"]["memory"]


@pytest.mark.parametrize("namespaces", [[], ["a", "b"]], ids=["cluster-wide", "two namespaces"])
def test_the_operator_has_no_more_rights_than_it_needs(render: Render, namespaces: list[str]) -> None:
    rendered = render(watchNamespaces=namespaces)
    cluster = set(rules(rendered.one("ClusterRole", "pinnace-operator-pinnace-system")))
    serving = [set(rules(rendered.one("Role", namespace=each))) for each in namespaces] or [cluster]
    if namespaces:
        assert cluster == {("authentication.k8s.io", "tokenreviews", (), "create")}
    writing = ("create", "update", "patch", "delete")
    for granted in serving:
        writes = {each[:2] for each in granted if each[3] in writing}
        assert writes - {("authentication.k8s.io", "tokenreviews")} == {
            ("pinnace.dev", "sftjobs"), ("pinnace.dev", "sftjobs/status"), ("pinnace.dev", "sftjobs/finalizers"),
            ("pinnace.dev", "mergejobs"), ("pinnace.dev", "mergejobs/status"), ("pinnace.dev", "mergejobs/finalizers"),
            ("pinnace.dev", "evalsuites"), ("pinnace.dev", "evalsuites/status"),
            ("pinnace.dev", "evalsuites/finalizers"),
            ("pinnace.dev", "rlruns"), ("pinnace.dev", "rlruns/status"), ("pinnace.dev", "rlruns/finalizers"),
            ("pinnace.dev", "toolsandboxes/status"), ("pinnace.dev", "toolsandboxes/finalizers"),
            ("jobset.x-k8s.io", "jobsets"), ("", "events"), ("", "pods"), ("apps", "deployments"), ("", "services"),
            ("", "configmaps"), ("", "serviceaccounts"), ("", "secrets"),
            ("networking.k8s.io", "networkpolicies"), ("policy", "poddisruptionbudgets"),
            ("rbac.authorization.k8s.io", "roles"), ("rbac.authorization.k8s.io", "rolebindings"),
        }  # fmt: skip
        assert {each[3] for each in granted if each[1] == "secrets"} == {"create"}, "Secrets are never read"
        assert {each[3] for each in granted if each[1] == "pods"} == {"get", "list", "watch", "delete"}
        ours = {
            each for each in granted if each[1] in ("evalsuites", "mergejobs", "rlruns", "sftjobs", "toolsandboxes")
        }
        made = {each[1:] for each in ours if each[3] in ("create", "update", "delete")}
        assert made == {("evalsuites", (), verb) for verb in ("create", "delete")}, "a MergeJob's sweep makes those"
        forbidden = {"pods/exec", "pods/log", "clusterroles", "clusterrolebindings", "nodes"}
        assert not {each for each in granted if each[1] in forbidden or each[3] in ("escalate", "bind", "impersonate")}
        assert not {each for each in granted if "*" in each[:2] or each[3] == "*"}


def test_the_operator_holds_every_right_that_it_gives_to_gateways(render: Render) -> None:
    """Or the API server refuses the Role, since the operator may not escalate."""
    held = {each[:2] + each[3:] for each in rules(render().one("ClusterRole", "pinnace-operator-pinnace-system"))}
    role = gateway.rights(Identity(kind="ToolSandbox", namespace="team", name="tools", uid="u"))[1]
    assert {each[:2] + each[3:] for each in rules(role)} <= held


def test_gateways_that_review_tokens_are_named_in_the_values(render: Render) -> None:
    assert "pinnace-tools-gateway" not in str(render())
    rendered = render(toolGateways=[{"namespace": "team", "name": "tools"}])
    binding = rendered.one("ClusterRoleBinding", "pinnace-tools-gateway-pinnace-system")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "namespace": "team", "name": "tools-gateway"}]
    granted = set(rules(rendered.one("ClusterRole", "pinnace-tools-gateway-pinnace-system")))
    assert granted == {("authentication.k8s.io", "tokenreviews", (), "create")}


def test_the_operators_own_namespace_holds_its_ca(render: Render) -> None:
    rendered = render()
    own = set(rules(rendered.one("Role", "pinnace-operator", "pinnace-system")))
    assert {each for each in own if each[1] == "secrets"} == {
        ("", "secrets", (), "create"), ("", "secrets", ("pinnace-progress-tls",), "get"),
        ("", "secrets", ("pinnace-progress-tls",), "update"),
    }  # fmt: skip


def test_users_can_not_write_the_status(render: Render) -> None:
    rendered = render()
    for name in ("pinnace-edit", "pinnace-view"):
        written = {each[3] for each in rules(rendered.one("ClusterRole", name)) if each[1].endswith("/status")}
        assert written <= {"get", "list", "watch"}
    scaled = {each[3] for each in rules(rendered.one("ClusterRole", "pinnace-edit")) if each[1].endswith("/scale")}
    assert scaled == {"get", "update", "patch"}
    assert {each[3] for each in rules(rendered.one("ClusterRole", "pinnace-view"))} == {"get", "list", "watch"}
    assert "pinnace-view" not in str(render(userRoles=False))


def test_two_replicas_survive_a_drain(render: Render) -> None:
    assert "PodDisruptionBudget" not in render(replicas=1).kinds()
    assert render(replicas=2).one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_only_the_two_ports_can_be_reached(render: Render) -> None:
    policy = render().one("NetworkPolicy")["spec"]
    assert (policy["policyTypes"], [each["port"] for each in policy["ingress"][0]["ports"]]) == (
        ["Ingress"],
        [8443, 8080],
    )
    strict = render(networkPolicy={"egressPorts": [6443]}).one("NetworkPolicy")["spec"]
    assert {each["port"] for each in strict["egress"][0]["ports"]} == {53, 6443}


@pytest.mark.parametrize(("values", "named"), [
    ({"replica": 2}, "replica"),
    ({"replicas": 0}, "replicas"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"watchNamespaces": ["Not_A_Name"]}, "watchNamespaces"),
    ({"storage": {"endpoint": "s3.example.com"}}, "endpoint"),
    ({"storage": {"accessKeyId": "AKIA"}}, "accessKeyId"),
    ({"progressUrl": "http://insecure"}, "progressUrl"),
    ({"toolGateways": [{"name": "tools"}]}, "namespace"),
    ({"gatewayEgressPorts": [0]}, "gatewayEgressPorts"),
])  # fmt: skip
def test_a_wrong_value_is_refused_by_name(render: Render, values: Object, named: str) -> None:
    with pytest.raises(RuntimeError, match=named):
        render(**values)


@pytest.mark.parametrize(
    "values", [{}, EVERYTHING, {"watchNamespaces": ["chart-a", "chart-b"]}], ids=["default", "everything", "namespaced"]
)
def test_the_api_server_accepts_the_installation(apiserver: ApiServer, render: Render, values: Object) -> None:
    spaces = [_namespace(each) for each in ("pinnace-system", "chart-a", "chart-b")]
    Kubectl(apiserver.kubeconfig, namespace="pinnace-system").apply(*spaces)
    # ServiceMonitors need the Prometheus operator's CRD.
    rendered = [each for each in render(**values) if each["kind"] != "ServiceMonitor"]
    for namespace in sorted({each["metadata"].get("namespace", "pinnace-system") for each in rendered}):
        # kubectl takes objects of one namespace at a time when it is told one.
        kubectl = Kubectl(apiserver.kubeconfig, namespace=namespace)
        kubectl.apply(*(e for e in rendered if e["metadata"].get("namespace", "pinnace-system") == namespace))


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def test_the_charts_crds_are_the_generated_ones() -> None:
    for path in (REPOSITORY / "crds").glob("*.yaml"):
        assert (CHART / "crds" / path.name).read_text() == path.read_text()


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project
