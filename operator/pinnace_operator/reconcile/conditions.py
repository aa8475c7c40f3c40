"""Merging conditions: what is new about them and what stays."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pinnace_operator.api.conditions import Condition, ConditionType, Reason, find

_LONGEST = 4096


class Conditions:
    """The conditions of a status on their way to the next one.

    `lastTransitionTime` moves only when a status flips; every condition set in this reconcile carries the present
    generation; conditions that nobody sets stay as they were.
    """

    def __init__(self, before: Iterable[Condition], *, now: datetime, generation: int) -> None:
        self._conditions = {each.type: each for each in before}
        self._now = now
        self._generation = generation

    def set(self, type_: ConditionType, holds: bool, reason: Reason, message: str) -> None:
        status = "True" if holds else "False"
        before = self._conditions.get(type_)
        since = before.last_transition_time if before and before.status == status else self._now
        self._conditions[type_] = Condition(
            type=type_,
            status=status,
            observed_generation=self._generation,
            last_transition_time=since,
            reason=reason,
            message=message[:_LONGEST],
        )

    def clear(self, type_: ConditionType, reason: Reason, message: str) -> None:
        """Say that it does not hold (any more), if it ever held: an abnormal condition appears only once it is true."""
        if type_ in self._conditions:
            self.set(type_, False, reason, message)

    def find(self, type_: ConditionType) -> Condition | None:
        return find(self._conditions.values(), type_)

    def all(self) -> tuple[Condition, ...]:
        """In the order of the list of types, so that equal conditions are equal statuses."""
        order = list(ConditionType)
        return tuple(sorted(self._conditions.values(), key=lambda each: order.index(each.type)))
