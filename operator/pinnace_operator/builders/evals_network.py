"""Who may talk to whom in an EvalSuite: only its own shards reach the server, and they reach what they need."""

from __future__ import annotations

from typing import Any

from pinnace_operator.api.evalsuite import EvalSuiteSpec
from pinnace_operator.builders.evals import PORT, PREFLIGHT, ROLLOUT, WORKER
from pinnace_operator.builders.identity import KIND, NAME, ROLE, Identity
from pinnace_operator.builders.networkpolicy import DNS, anywhere, policy, tcp, to_pods
from pinnace_operator.builders.toolsandbox import GATEWAY, GATEWAY_PORT, port_of
from pinnace_operator.builders.workload import selector

_HTTPS = 443
Object = dict[str, Any]


def policies(identity: Identity, spec: EvalSuiteSpec, *, storage: str, operator: str) -> tuple[Object, ...]:
    """NetworkPolicies of the pods of each role.

    Args:
        storage: the S3 endpoint, if the spec or the installation says it.
        operator: the progress server's address.
    """
    s3, reports = port_of(spec.storage.endpoint or storage), port_of(operator)
    hub = [_HTTPS] if spec.model and spec.model.hub else []
    made = [
        policy(
            identity, f"{identity.name}-{role}", identity.labels(role), selector(identity, role), [],
            _reached(identity, spec, s3, reports),
        )
        for role in (PREFLIGHT, WORKER)
    ]  # fmt: skip
    if spec.engine.server:
        shards = {"from": [{"podSelector": {"matchLabels": selector(identity, WORKER)}}], "ports": tcp([PORT])}
        out = [DNS, anywhere(s3, [*hub])]
        made.append(
            policy(identity, f"{identity.name}-{ROLLOUT}", identity.labels(ROLLOUT), selector(identity, ROLLOUT),
                   [shards], out)
        )  # fmt: skip
    return tuple(made)


def _reached(identity: Identity, spec: EvalSuiteSpec, s3: int | None, operator: int | None) -> list[Object]:
    """Of the pods that run the agent. Addresses outside the cluster can't be named, their ports can."""
    urls = [each.url for each in (spec.engine.external, spec.judge) if each]
    ports = [port for url in urls if (port := port_of(url))]
    hub = [_HTTPS] if any(each.source is None for each in spec.benchmarks) or (spec.model and spec.model.hub) else []
    tokenizer = spec.engine.external.tokenizer if spec.engine.external else "s3://"
    found = [
        DNS,
        to_pods(selector(identity, ROLLOUT), [PORT]),
        anywhere(s3, [*ports, *hub, *([operator] if operator else []), *([] if "://" in tokenizer else [_HTTPS])]),
    ]
    if spec.tool_sandbox:
        gateway = {KIND: "ToolSandbox", NAME: spec.tool_sandbox.name, ROLE: GATEWAY}
        found.append(to_pods(gateway, [GATEWAY_PORT]))
    return found
