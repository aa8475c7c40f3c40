"""Chains of backup tools: a call must never come back to a tool that it has left."""

from __future__ import annotations

from pinnace_operator.api.toolpolicy import ToolPolicy
from pinnace_operator.api.toolsandbox import ToolSandboxSpec


def circle(spec: ToolSandboxSpec) -> list[str] | None:
    """Names, as agents see them, of tools whose backups lead back to the first one; None when there are none.

    The API server's rules see a tool that is its own backup; longer circles are beyond what they may cost.
    """
    by_name = {name: policy for policy in spec.tools for name in policy.public_names}
    done: set[str] = set()
    for policy in spec.tools:
        found = _visit(policy, by_name, [], done)
        if found:
            return found
    return None


def _visit(policy: ToolPolicy, by_name: dict[str, ToolPolicy], path: list[str], done: set[str]) -> list[str] | None:
    name = policy.public_names[0]
    if name in path:
        return [*path[path.index(name) :], name]
    if policy.name in done:
        return None
    for backup in policy.backups:
        after = by_name.get(backup.tool)
        found = _visit(after, by_name, [*path, name], done) if after else None
        if found:
            return found
    done.add(policy.name)
    return None


def problem(spec: ToolSandboxSpec) -> str | None:
    """What is wrong with the backups, for people."""
    found = circle(spec)
    if found is None:
        return None
    return f"spec.tools.backups: {' → '.join(found)} is a circle, in which a call could go round for ever"
