"""gateway.json as the operator writes it: the gateway takes it, and whatever a user sets arrives."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pinnace.tools.gateway.config import GatewayConfig, parse
from pinnace.tools.gateway.store import NoStore, Store
from pinnace_operator.api.toolsandbox import ToolSandboxSpec
from pinnace_operator.builders import environment, gateway_config
from pinnace_operator.builders.identity import Identity

SAMPLES = sorted((Path(__file__).parents[2] / "crds" / "samples").glob("toolsandbox-*.yaml"))
IDENTITY = Identity(kind="ToolSandbox", namespace="team", name="tools", uid="0a1b2c3d-4e5f", generation=7)
Place = tuple[str | int, ...]

FULL: dict[str, Any] = {
    "servers": [
        {
            "name": "web", "catalogue": "web", "maxInFlight": 4, "queue": 64,
            "versions": [{"name": "v1", "weight": 90}],
            "scale": {"minReplicas": 1, "maxReplicas": 8, "targetInFlight": 3},
            "tools": {"include": ["search", "fetch"], "exclude": ["read"]},
        },
        {"name": "mine", "image": "registry.example.com/mine:1", "port": 9000, "path": "/tools",
         "versions": [{"name": "v2", "replicas": 2}]},
        {"name": "db", "catalogue": "sqlite", "isolation": "Session", "tools": {"exclude": ["append_insight"]}},
    ],
    "tools": [
        {
            "name": "web.search", "alias": "web_search", "timeoutSeconds": 30, "cacheTtlSeconds": 60, "retry": "Never",
            "rateLimit": {"perSecond": 50, "burst": 100},
            "backups": [{"tool": "search", "argumentMapping": {"query": "$.q"}, "resultMapping": {"text": "$.a"}}],
        },
        {"name": "python.python", "timeoutSeconds": 90},
        {"name": "db.read_query", "timeoutSeconds": 20},
    ],
    "sessions": {"max": 9, "idleSeconds": 60, "hardSeconds": 600, "recycle": "Delete", "servers": ["python", "shell"]},
    "gateway": {
        "auth": {"mode": "ServiceAccount"}, "defaultTimeoutSeconds": 50, "maxInFlight": 500, "maxQueueSeconds": 5,
        "retryBudgetPercent": 10, "requestBytes": 100_000, "resultBytes": 50_000,
    },
}  # fmt: skip
"""Every setting that gateways act upon, none at its default."""

OTHER = {"mine": "ours", "Never": "Always", "Delete": "Noop", "ServiceAccount": "Token",
         "$.q": "$.query", "$.a": "$.b", "/tools": "/mcp", "shell": "files"}  # fmt: skip
KEPT_TOGETHER = {
    ("servers", 0, "name"),
    ("servers", 2, "name"),
    ("servers", 2, "isolation"),
    ("sessions", "servers", 0),
}
"""Other parts of the spec name them: each has its own rule at admission."""
PODS_ONLY = {"image", "catalogue"}


def configuration(spec: dict[str, Any]) -> GatewayConfig:
    return parse(gateway_config.rendered(gateway_config.document(IDENTITY, ToolSandboxSpec.model_validate(spec))))


def leaves(value: Any, at: Place = ()) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, (*at, key))
    elif at not in KEPT_TOGETHER and at[-1] not in PODS_ONLY:
        yield at, value


def changed(at: Place, value: Any) -> dict[str, Any]:
    """`FULL` with another value in one place."""
    spec = copy.deepcopy(FULL)
    place: Any = spec
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value + 1 if isinstance(value, int) else OTHER.get(value) or f"{value}x"
    return spec


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_gateway_takes_what_the_operator_writes_for_a_sample(sample: Path) -> None:
    spec = yaml.safe_load(sample.read_text())["spec"]
    taken = configuration(spec)
    assert [each.name for each in taken.servers] == sorted(each["name"] for each in spec["servers"])
    assert [f"{each.server}.{each.tool}" for each in taken.tools] == sorted(
        each["name"] for each in spec.get("tools", ())
    )


def test_the_gateway_reads_every_field_that_the_operator_writes() -> None:
    document = gateway_config.document(IDENTITY, ToolSandboxSpec.model_validate(FULL))
    read = configuration(FULL).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert read == json.loads(gateway_config.rendered(document))


@pytest.mark.parametrize("at", [at for at, _ in leaves(FULL)], ids=lambda at: ".".join(map(str, at)))
def test_whatever_a_user_sets_arrives(at: Place) -> None:
    assert configuration(changed(at, dict(leaves(FULL))[at])) != configuration(FULL)


@pytest.mark.parametrize(
    ("storage", "secret", "where"),
    [
        ({}, {"PINNACE_S3_BUCKET": "hers", "PINNACE_S3_PREFIX": "p"}, "s3://hers/p"),
        ({"bucket": "ours"}, {"PINNACE_S3_PREFIX": "p"}, "s3://ours/p"),
        ({"bucket": "ours", "prefix": "q/r"}, {}, "s3://ours/q/r"),
        ({}, {}, "s3://everyone"),
    ],
    ids=["the Secret's", "spec's bucket, Secret's prefix", "the spec's", "the installation's"],
)
def test_long_results_go_to_the_folder_of_the_run(storage: dict[str, str], secret: dict[str, str], where: str) -> None:
    spec = ToolSandboxSpec.model_validate({**FULL, "storage": storage})
    rendered = environment.storage(spec.storage, {"bucket": "everyone"}, secret=spec.storage.secret_name)
    pod = secret | {each["name"]: each["value"] for each in rendered if "value" in each}
    store = Store()
    store.configure(configuration(FULL).results.uri, {**pod, "PINNACE_RUN_PATH": IDENTITY.run_path})
    assert store.uri == f"{where}/team/toolsandbox/tools/0a1b2c3d/results"


async def test_without_a_bucket_the_remedy_is_named() -> None:
    store = Store()
    store.configure("", {"PINNACE_RUN_PATH": IDENTITY.run_path})
    with pytest.raises(NoStore, match=r"spec\.storage"):
        await store.write("a", b"")
