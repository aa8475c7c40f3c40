"""Who may talk to whom in an RLRun: its own roles, each as far as it must."""

from __future__ import annotations

from typing import Any

from pinnace_operator.api.rlrun import RLRunSpec
from pinnace_operator.builders import rl
from pinnace_operator.builders.identity import KIND, NAME, ROLE, Identity
from pinnace_operator.builders.networkpolicy import DNS, anywhere, policy, tcp, to_pods
from pinnace_operator.builders.toolsandbox import GATEWAY, GATEWAY_PORT, port_of
from pinnace_operator.builders.workload import selector

_HTTPS = 443
Object = dict[str, Any]

_CALLS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    (rl.TRAINER, rl.COORDINATOR, (rl.COORDINATOR_PORT,)),
    (rl.TRAINER, rl.PROXY, (rl.PROXY_PORT,)),
    (rl.SAMPLER, rl.COORDINATOR, (rl.COORDINATOR_PORT,)),
    (rl.SAMPLER, rl.PROXY, (rl.PROXY_PORT,)),
    (rl.PROXY, rl.ROLLOUT, (rl.SERVER_PORT, rl.MIRROR_PORT)),
)
"""(from, to, ports): nobody but the proxy reaches a server, whose control routes ask for no key."""


def policies(identity: Identity, spec: RLRunSpec, *, storage: str, operator: str) -> tuple[Object, ...]:
    """One NetworkPolicy a role.

    Args:
        storage: the S3 endpoint, if the spec or the installation says it.
        operator: the progress server's address.
    """
    s3, reports = port_of(spec.storage.endpoint or storage), port_of(operator)
    outside = anywhere(s3, [*([_HTTPS] if spec.model.hub else []), *([reports] if reports else [])])
    roles = (rl.TRAINER, rl.ROLLOUT, rl.SAMPLER, rl.COORDINATOR, rl.PROXY)
    return tuple(_policy(identity, role, [*_calls(identity, role), *_more(spec, role, outside)]) for role in roles)


def _policy(identity: Identity, role: str, egress: list[Object]) -> Object:
    ingress = [
        {"from": [{"podSelector": {"matchLabels": selector(identity, source)}}], "ports": tcp(ports)}
        for source, target, ports in _CALLS
        if target == role
    ]
    name = f"{identity.name}-{role}"
    return policy(identity, name, identity.labels(role), selector(identity, role), ingress, egress)


def _calls(identity: Identity, role: str) -> list[Object]:
    return [to_pods(selector(identity, target), ports) for source, target, ports in _CALLS if source == role]


def _more(spec: RLRunSpec, role: str, outside: Object) -> list[Object]:
    """DNS, S3 and what else is outside. An agent or a reward of the user's own may call anything from a sampler."""
    if role == rl.SAMPLER and (spec.agent.loop is None or spec.reward.function):
        return [{}]
    found = [DNS, outside]
    if role == rl.SAMPLER and spec.reward.grader and spec.reward.grader.judge:
        found.append(anywhere(port_of(spec.reward.grader.judge.url), []))
    if role == rl.SAMPLER and spec.tool_sandbox:
        gateway = {KIND: "ToolSandbox", NAME: spec.tool_sandbox.name, ROLE: GATEWAY}
        found.append(to_pods(gateway, [GATEWAY_PORT]))
    return found
