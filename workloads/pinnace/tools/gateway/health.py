"""How each tool has been doing: what the operator shows as unhealthy."""

from __future__ import annotations

from dataclasses import dataclass

from pinnace.tools.gateway.reply import Reply
from pinnace.tools.outcome import Outcome

_UNHEALTHY_AFTER = 3  # infrastructure failures in a row


@dataclass
class _Streak:
    length: int
    outcome: Outcome
    message: str


class Health:
    """Streaks of infrastructure failures by tool."""

    def __init__(self) -> None:
        self._streaks: dict[str, _Streak] = {}

    def ended(self, tool: str, reply: Reply) -> None:
        if not reply.outcome.infrastructure:
            if self._streaks:
                self._streaks.pop(tool, None)
            return
        told = reply.problem.message if reply.problem else ""
        length = self._streaks[tool].length + 1 if tool in self._streaks else 1
        self._streaks[tool] = _Streak(length, reply.outcome, told[:256])

    def unhealthy(self) -> list[dict[str, str]]:
        """`{name, outcome, message}` of the tools whose last calls all failed, the worst first, at most 50."""
        bad = [(name, each) for name, each in self._streaks.items() if each.length >= _UNHEALTHY_AFTER]
        bad.sort(key=lambda pair: -pair[1].length)
        return [{"name": name, "outcome": str(each.outcome), "message": each.message} for name, each in bad[:50]]
