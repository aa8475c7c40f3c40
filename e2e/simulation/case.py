"""One row of a table of situations, and what must hold for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from e2e.simulation.objects import Object, sftjob


@dataclass(frozen=True, kw_only=True)
class Case:
    """A job with facts about it, and what the operator has to do and say."""

    name: str
    job: Object = field(default_factory=sftjob)
    facts: dict[str, Any] = field(default_factory=dict)
    state: str
    reason: str
    says: tuple[str, ...] = ()
    creates: bool = False
    prunes: bool = False
    requeue: int | None = None
    status: dict[str, Any] = field(default_factory=dict)
    """Top-level fields of the status that must have these values."""
    conditions: dict[str, str] = field(default_factory=dict)

    def check(self, plan: Any) -> None:
        """Raises AssertionError."""
        status = plan.status
        conditions = {each["type"]: each for each in status["conditions"]}
        message = conditions["Progressing"]["message"]
        assert (status["state"], conditions["Progressing"]["reason"]) == (self.state, self.reason), message
        assert not [text for text in self.says if text not in message], message
        assert (bool(plan.children), bool(plan.prune)) == (self.creates, self.prunes)
        assert plan.requeue_after == self.requeue
        assert {name: status.get(name) for name in self.status} == self.status
        assert {name: conditions[name]["status"] for name in self.conditions} == self.conditions
        for prune in plan.prune:
            assert (prune.name, prune.uid) == ("job", self.facts["jobset"]["metadata"]["uid"])
        if self.state in ("Pending", "Suspended"):
            assert status["pending"] == {"reason": self.reason, "message": message}
