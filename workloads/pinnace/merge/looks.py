"""Looks at whole tensors, or at the whole model, before they are merged: for cuts, norms and angles."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from pinnace.storage.workers import Workers

from .budget import Budget
from .compute import Compute, join
from .fetch import Fetcher, Fetching
from .groups import Group, cost
from .layout import Part
from .methods import Measure, Survey
from .plan import Plan


class Looks:
    """The surveys of one plan."""

    def __init__(self, plan: Plan, compute: Compute, fetcher: Fetcher, computers: Workers) -> None:
        self._plan = plan
        self._compute = compute
        self._fetcher = fetcher
        self._computers = computers

    def sliding(self, wanted: Sequence[Part], memory: Budget) -> Callable[[], Iterator[Fetching]]:
        """Reads parts one after the other, a few ahead; each is released when the next is asked for."""

        def parts() -> Iterator[Fetching]:
            ahead: deque[Fetching] = deque()
            rest = deque(wanted)
            held = 0
            while rest or ahead:
                while rest and held + cost(self._plan, rest[0]) <= memory.total:
                    held += cost(self._plan, rest[0])
                    ahead.append(self._fetcher.start(rest.popleft()))
                one = ahead.popleft()
                try:
                    yield one
                finally:
                    one.settle()
                    self._fetcher.release(one)
                held -= cost(self._plan, one.part)

        return parts

    def across(self, survey: Survey, fetched: Callable[[], Iterator[Fetching]]) -> Any:
        """Reads everything, as often as the method wants, to find out what concerns all tensors together."""
        measure, check = next(survey), True
        try:
            while True:
                joined = np.zeros(0)
                for one in fetched():
                    data = one.result()
                    places = self._plan.places(data.part)
                    for span, place in zip(data.part.spans, places, strict=True):
                        if self._plan.tensors[span.tensor].task and span.end > span.start:
                            look = self._computers.submit(
                                self._compute.measure, measure, data, span, place, check=check
                            )
                            joined = join(measure, joined if joined.size else None, look.result())
                check = False
                measure = survey.send(joined)
        except StopIteration as end:
            return end.value

    def group(self, group: Group, fetched: Callable[[], Iterable[Fetching]]) -> dict[int, Any]:
        """What must be known about the tensor that spans the group."""
        tensor = group.tensor
        if tensor is None:
            return {}
        survey = self._plan.parameters.method.survey(self._plan.tensors[tensor].merged)
        check = True
        try:
            measure = next(survey)
            while True:
                result = self._measured(tensor, measure, fetched(), check=check)
                check = False
                measure = survey.send(result)
        except StopIteration as end:
            return {tensor: end.value}

    def _measured(self, tensor: int, measure: Measure, fetched: Iterable[Fetching], *, check: bool) -> Any:
        """One look at all parts, joined in their order."""
        joined = None
        looks: deque[Future[Any]] = deque()
        kept = isinstance(fetched, list)
        for one in fetched:
            looks.append(self._look(tensor, measure, one, check=check))
            while looks and not kept:  # the next part takes this one's memory
                joined = join(measure, joined, looks.popleft().result())
        for look in looks:
            look.exception()
        for look in looks:
            joined = join(measure, joined, look.result())
        return joined

    def _look(self, tensor: int, measure: Measure, fetching: Fetching, *, check: bool) -> Future[Any]:
        data = fetching.result()
        spans = zip(data.part.spans, self._plan.places(data.part), strict=True)
        span, places = next((span, places) for span, places in spans if span.tensor == tensor)
        return self._computers.submit(self._compute.measure, measure, data, span, places, check=check)
