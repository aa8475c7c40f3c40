"""A ToolSandbox that a job's agents use: waited for until it is Ready."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from pinnace_operator.api.conditions import ConditionType, Reason
from pinnace_operator.api.status import InputRef
from pinnace_operator.api.toolgateway import AuthMode
from pinnace_operator.api.toolsandbox import ToolSandbox
from pinnace_operator.builders.toolsandbox import Names
from pinnace_operator.reconcile.plan import Raw
from pinnace_operator.reconcile.upstream import Missing, Need

SANDBOX = "ToolSandbox"


def references(reference: Raw | None) -> tuple[tuple[str, str], ...]:
    """(kind, name) of what `spec.toolSandbox` names, as the spec has it, right or wrong."""
    name = (reference or {}).get("name")
    return ((SANDBOX, str(name)),) if name else ()


def sandbox(name: str, tenant: str, upstreams: Mapping[tuple[str, str], Raw | None]) -> Need | Missing:
    """Where the tools are and where the tenant's token is, once they can be called."""
    what, found = f"{SANDBOX}/{name}", upstreams.get((SANDBOX, name))
    if found is None:
        return wait(f"Waits for {what}, which does not exist yet: create it in this namespace")
    try:
        parsed = ToolSandbox.from_manifest(dict(found))
    except ValidationError:
        return wait(f"Waits for {what}, which this operator can't read")
    ready = next((each for each in parsed.status.conditions if each.type is ConditionType.READY), None)
    if ready is None or ready.status != "True" or not parsed.status.endpoint:
        why = f": {ready.reason}: {ready.message}" if ready else ""
        return wait(f"Waits until {what} is Ready{why}")
    auth = parsed.spec.gateway.auth
    if auth.mode is not AuthMode.TOKEN:
        return wait(
            f"Waits for {what}, whose gateway admits service accounts only: set gateway.auth.mode there to Token"
        )
    secret = auth.secret_name or Names(name).tokens
    address = {"uri": parsed.status.endpoint, "secretName": secret, "key": tenant}
    return Need("toolSandbox", address, InputRef(ref=f"toolSandbox: {what}", uri=parsed.status.endpoint))


def wait(message: str) -> Missing:
    """For something that may come yet."""
    return Missing(Reason.WAITING_FOR_INPUT, f"{message.rstrip('.')}.")
