"""The agent: one loop for RL and for evaluation.

    view → (fold) → model → calls → (refine) → view → …

All state is in the event log. Whatever kills the process, `run` with the same log goes on where it stopped; only calls
whose reply was not yet written are made again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from difflib import get_close_matches
from typing import Any

from . import guards
from .agent import Agent, Task
from .events import Began, Call, Ended, Nudged, Overflowed, Replied, Termination, Turned
from .guards import Stop
from .log import EventLog
from .model import ContextTooLong, ModelRefused, ModelUnavailable, Reply
from .recall import RECALL_SCHEMA, recall
from .refine import Request, goal_of
from .steps import Story
from .tools import DENIED, INVALID_ARGUMENTS, OK, Tools
from .view import RECALL, ContextFull, View, view_story

_OVERFLOWS = 3
_TELL = {
    "no_answer": "That was neither a tool call nor an answer. {hint}",
    "cut": "Your turn was cut off because it was too long. Think less, then call a tool or answer. {hint}",
    "force": "Stop here: {detail}. Do not call tools any more. Give the best answer you can from what you have found. "
    "{hint}",
}


async def run(
    task: Task, agent: Agent, tools: Tools, log: EventLog, *, clock: Callable[[], float] = time.monotonic
) -> Ended:
    """Runs or resumes one trajectory to its end and returns its last event.

    Args:
        task: ignored if `log` has begun already.
        agent: must be the same when a trajectory is resumed; a log begun under another policy is refused.
        tools: of this trajectory.
        log: empty, or what a dead process left.
        clock: seconds, monotonic.

    Raises:
        ValueError: the log was begun under another policy.
        Anything that `tools` or the log's writer raises: those are bugs or storage, and the log stays resumable.
    """
    if (ended := log.ended) is not None:
        return ended
    return await _Run(agent, tools, log, clock).to_the_end(task)


class _Run:
    def __init__(self, agent: Agent, tools: Tools, log: EventLog, clock: Callable[[], float]) -> None:
        self.agent = agent
        self.tools = tools
        self.log = log
        self._clock = clock
        self._zero = clock() - log.elapsed
        self._read: Story | None = None
        self._seen = 0

    @property
    def now(self) -> float:
        """Active seconds."""
        return self._clock() - self._zero

    def _story(self) -> Story:
        """The log, read; only what is new since the last time is looked at."""
        if self._read is None:
            self._read, self._seen = Story(self.log.began), 1
        for index in range(self._seen, len(self.log)):
            self._read.add(index, self.log[index])
        self._seen = len(self.log)
        return self._read

    async def to_the_end(self, task: Task) -> Ended:
        if not len(self.log):
            await self._begin(task)
        elif self.log.began.policy_hash != self.agent.policy.digest:
            raise ValueError(
                f"the log was begun under policy {self.log.began.policy!r}: resume it with that, or delete it"
            )
        while True:
            story = self._story()
            if work := self._unfinished(story):
                if await self._in_time(work, self._left):
                    continue
                return await self._stop(Stop("wall_clock", "the time ran out during a tool call"))
            if story.steps and story.steps[-1].silent:
                if (ended := self._conclude(story)) is not None:
                    return ended
                continue
            if (stop := guards.stop(story, self.agent.limits, self.now)) is not None:
                return await self._stop(stop)
            if (ended := await self._turn(story)) is not None:
                return ended

    def _unfinished(self, story: Story) -> Coroutine[Any, Any, None] | None:
        """What the last step still needs before the model can go on: replies, then refinement."""
        if not story.steps:
            return None
        if unanswered := story.steps[-1].unanswered:
            return self._answer_calls(story, unanswered)
        if raw := self._to_refine(story):
            return self._refine(raw, story)
        return None

    async def _begin(self, task: Task) -> None:
        schemas = [dict(schema) for schema in await self.tools.schemas()]
        if schemas and self.agent.policy.hides:
            schemas.append(RECALL_SCHEMA)
        self.log.append(
            Began(
                question=task.question,
                system=task.system,
                images=task.images,
                tools=tuple(schemas),
                model=self.agent.model.name,
                policy=self.agent.policy.name,
                policy_hash=self.agent.policy.digest,
            )
        )

    async def _turn(self, story: Story) -> Ended | None:  # noqa: PLR0911 - each step may be the end
        """One turn of the model; what it leads to, if that is the end."""
        shown = self._view(story)
        if isinstance(shown, Ended):
            return shown
        if shown.fold_before is not None:
            if await self._in_time(self._fold(story, shown.fold_before), self._left):
                return None
            return await self._stop(Stop("wall_clock", "the time ran out while the context was folded"))
        if shown.overflow and self.agent.policy.overflow == "answer":
            return await self._stop(Stop("context", f"the context is full after {len(story.steps)} turns"))
        began = self.now
        answer: list[Reply | Ended] = []
        if not await self._in_time(self._ask(shown, answer), self._left):
            return await self._stop(Stop("wall_clock", "the time ran out during a turn of the model"))
        if not answer:
            return None  # the prompt was too long: next time it is shorter
        if isinstance(answer[0], Ended):
            return answer[0]
        self._take(answer[0], shown, began)
        return None

    async def _fold(self, story: Story, before: int) -> None:
        assert self.agent.folder is not None  # noqa: S101 - Agent sees to it
        folded = await self.agent.folder.fold(story, before)
        self.log.append(folded.model_copy(update={"t": self.now}))

    def _view(self, story: Story) -> View | Ended:
        try:
            return view_story(story, self.agent.policy, self.agent.counter, self.agent.budget)
        except ContextFull as error:
            return self._end("context", detail=str(error))

    async def _ask(self, shown: View, answer: list[Reply | Ended], *, may_call: bool = True) -> None:
        messages, tools = self.agent.dialect.request(shown.messages, self.log.began.tools)
        try:
            answer.append(await self.agent.model.complete(messages, tools, may_call=may_call))
        except ContextTooLong as error:
            self.log.append(Overflowed(t=self.now, counted=shown.tokens, message=str(error)[:500]))
            if sum(isinstance(event, Overflowed) for event in self.log) > _OVERFLOWS:
                answer.append(self._end("context", detail=str(error)))
        except ModelUnavailable as error:
            answer.append(self._end("model_unavailable", detail=str(error)))
        except ModelRefused as error:
            answer.append(self._end("refused", detail=str(error)))

    def _take(self, reply: Reply, shown: View, began: float, *, forced: Termination | None = None) -> None:
        """Writes the turn down."""
        said = self.agent.dialect.read(reply)
        number = len(self._story().steps)
        wanted = () if forced else said.calls
        calls = tuple(call.model_copy(update={"id": f"r{number}-{index}"}) for index, call in enumerate(wanted))
        self.log.append(
            Turned(
                t=self.now,
                content=said.content,
                reasoning=said.reasoning,
                calls=calls,
                finish=reply.finish,
                usage=reply.usage,
                view_tokens=shown.tokens,
                seconds=self.now - began,
                forced=forced,
                sampled=reply.sampled,
            )
        )

    def _conclude(self, story: Story) -> Ended | None:
        """Decides whether a turn without calls is an answer. Asks again if not."""
        turn = story.steps[-1].turn
        answer = self.agent.rule(turn.content)
        if turn.forced is not None:
            asked = next((note for step in reversed(story.steps) for note in step.notes), None) or story.notes[-1]
            return self._end(turn.forced, answer=answer, response=turn.content, forced=True, detail=asked.detail)
        if turn.finish in {"content_filter", "refused"}:
            return self._end("refused", response=turn.content, detail=f"finish reason {turn.finish}")
        if turn.finish == "length":
            self._nudge("cut")
            return None
        if answer is None:
            self._nudge("no_answer")
            return None
        return self._end("answered", answer=answer, response=turn.content)

    def _nudge(self, reason: str) -> None:
        text = _TELL[reason].format(hint=self.agent.rule.hint)
        self.log.append(Nudged(t=self.now, reason=reason, text=text))

    async def _answer_calls(self, story: Story, calls: Sequence[Call]) -> None:
        gate = asyncio.Semaphore(self.agent.limits.parallel)

        async def one(call: Call) -> None:
            async with gate:
                await self._answer_call(call, story)

        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(one(call))

    async def _answer_call(self, call: Call, story: Story) -> None:
        began = self.now
        outcome, text, meta = await self._outcome(call, story)
        self.log.append(
            Replied(
                t=self.now,
                call=call.id,
                name=call.name,
                outcome=outcome,
                text=text,
                seconds=self.now - began,
                meta=meta,
            )
        )

    async def _outcome(self, call: Call, story: Story) -> tuple[str, str, dict[str, Any]]:
        if call.problem is not None:
            return INVALID_ARGUMENTS, f"Malformed tool call: {call.problem}. Write it again.", {}
        names = [schema["function"]["name"] for schema in story.began.tools]
        if call.name == RECALL and RECALL in names:
            return (*recall(call.arguments, story), {})
        if call.name not in names:
            near = get_close_matches(call.name, names, n=2) or names[:8]
            return INVALID_ARGUMENTS, f"There is no tool {call.name!r}. Tools: {', '.join(near) or 'none'}.", {}
        reply = await self.tools.call(call.name, call.arguments)
        text = reply.text
        if not text:
            text = "(empty result)" if reply.outcome == OK else f"The call failed: {reply.outcome}."
        return str(reply.outcome), text, dict(reply.meta)

    def _to_refine(self, story: Story) -> list[Replied]:
        refiner = self.agent.refiner
        if refiner is None or self.agent.policy.refine is None:
            return []
        return [
            reply
            for reply in story.steps[-1].replies.values()
            if reply.call not in story.refined
            and reply.name != RECALL
            and refiner.applies(reply.name, reply.outcome, reply.text)
        ]

    async def _refine(self, replies: Sequence[Replied], story: Story) -> None:
        assert self.agent.refiner is not None  # noqa: S101 - `_to_refine` found something
        calls = {call.id: call for call in story.steps[-1].turn.calls}
        requests = [
            Request(each.call, story.began.question, goal_of(each.name, calls[each.call].arguments), each.text)
            for each in replies
        ]
        for refined in await asyncio.gather(*(self.agent.refiner.refine(request) for request in requests)):
            self.log.append(refined.model_copy(update={"t": self.now}))

    async def _stop(self, stop: Stop) -> Ended:
        """Ends for a limit; asks for an answer first where that makes sense."""
        if not stop.answer:
            return self._end(stop.reason, detail=stop.detail)
        steps = self._story().steps
        for call in steps[-1].unanswered if steps else ():
            self.log.append(Replied(t=self.now, call=call.id, name=call.name, outcome=DENIED, text="Not run: no time."))
        text = _TELL["force"].format(detail=stop.detail, hint=self.agent.rule.hint)
        if not any(isinstance(event, Nudged) and event.reason == stop.reason for event in self.log):
            self.log.append(Nudged(t=self.now, reason=stop.reason, text=text, detail=stop.detail))
        began, deadline = self.now, self.now + self.agent.limits.answer_seconds
        answer: list[Reply | Ended] = []
        while True:
            shown = self._view(self._story())
            if isinstance(shown, Ended):
                return shown
            if not await self._in_time(self._ask(shown, answer, may_call=False), lambda: deadline - self.now):
                return self._end(stop.reason, detail=f"{stop.detail}; no answer in the time that was left for it")
            if answer:
                break  # else the prompt was too long: it is asked again, shorter, a bounded number of times
        reply = answer[0]
        if isinstance(reply, Ended):
            return reply
        self._take(reply, shown, began, forced=stop.reason)
        return self._conclude(self._story()) or self._end(stop.reason)

    def _end(
        self,
        reason: Termination,
        *,
        answer: str | None = None,
        response: str = "",
        forced: bool = False,
        detail: str = "",
    ) -> Ended:
        ended = Ended(
            t=self.now, termination=reason, answer=answer, response=response, forced=forced, detail=detail[:1000]
        )
        self.log.append(ended)
        return ended

    def _left(self) -> float:
        return max(0.0, self.agent.limits.wall_seconds - self.now)

    @staticmethod
    async def _in_time(work: Coroutine[Any, Any, None], seconds: Callable[[], float]) -> bool:
        """Awaits `work`; False if the time ran out."""
        try:
            async with asyncio.timeout(seconds()) as scope:
                await work
        except TimeoutError:
            if scope.expired():
                return False
            raise
        return True
