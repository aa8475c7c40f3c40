"""What the status says when reconciles of a resource keep failing: the operator itself is stuck, a person must act."""

from __future__ import annotations

import datetime

from pinnace_operator.api.conditions import ConditionType, Reason, explain
from pinnace_operator.reconcile.plan import Plan
from pinnace_operator.runtime import kube_errors
from pinnace_operator.runtime.kube import Object


def stalled(resource: Object, error: Exception, retry_in: float, now: datetime.datetime) -> Plan:
    """A plan that changes nothing but the Stalled condition; the next reconcile that succeeds takes it back."""
    denied = isinstance(error, kube_errors.Forbidden)
    reason = Reason.PERMISSION_DENIED if denied else Reason.RECONCILE_FAILED
    status = dict(resource.get("status") or {})
    conditions = list(status.get("conditions") or [])
    before: Object = next((each for each in conditions if each["type"] == ConditionType.STALLED), {})
    since = before.get("lastTransitionTime") if before.get("status") == "True" else None
    fact = f"The operator can't reconcile ({error}); it tries again every {retry_in:.0f} s"
    condition = {
        "type": str(ConditionType.STALLED), "status": "True", "reason": str(reason),
        "message": explain(reason, fact)[:4096],
        "observedGeneration": resource["metadata"].get("generation", 0),
        "lastTransitionTime": since or now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    status["conditions"] = [each for each in conditions if each["type"] != ConditionType.STALLED] + [condition]
    status["observedGeneration"] = resource["metadata"].get("generation", 0)
    return Plan(status=status)
