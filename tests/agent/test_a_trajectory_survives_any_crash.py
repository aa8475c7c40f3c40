"""Whatever kills the process, the same log goes on and ends the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pinnace.agent import EventLog, FileLog, ModelCounter
from pinnace.agent.events import Event, Replied, Turned

from e2e.faults.model import Answer, Request, scripted_model

from .conftest import Bench, Functions, play


class Killed(BaseException):
    """The process dies: nothing catches this."""


def script(request: Request) -> Answer:
    """What the model says depends only on what it is shown, as with a real one at temperature 0."""
    results = [message["content"] for message in request["messages"] if message["role"] == "tool"]
    if len(results) < 6:
        number = len(results) // 2
        calls: list[tuple[str, dict[str, Any] | str]] = [("search", {"query": f"{number}{side}"}) for side in "ab"]
        return Answer(f"step {number}", calls=calls)
    return Answer(f"<answer>{' '.join(results)}</answer>")


def tools() -> Functions:
    return Functions({"search": lambda query: f"<{query}>"})


class DiesAfter:
    """Writes to a file; the process dies right after (or, with `torn`, in the middle of) event number `number`."""

    def __init__(self, file: FileLog, path: Path, number: int, *, torn: bool) -> None:
        self.file, self.path, self.number, self.torn, self.seen = file, path, number, torn, 0

    def __call__(self, event: Event) -> None:
        if self.seen >= self.number:
            raise Killed  # the dead write nothing
        self.file(event)
        self.seen += 1
        if self.seen == self.number:
            if self.torn:
                self.path.write_bytes(self.path.read_bytes()[:-7])
            raise Killed


@pytest.mark.parametrize("torn", [False, True])
async def test_killed_at_every_event_it_ends_as_if_nothing_had_happened(
    counter: ModelCounter, tmp_path: Path, torn: bool
) -> None:
    async with scripted_model(script) as model:
        agent = Bench(model, counter).agent()
        whole = EventLog()
        expected = await play(agent, tools(), whole)
        assert len(whole) == 12  # began, 3 times (turn + 2 replies), answer, end
        for number in range(1, len(whole)):
            path = tmp_path / f"{torn}-{number}.jsonl"
            file, first, second = FileLog(path), tools(), tools()
            with pytest.raises(BaseException) as caught:
                await play(agent, first, EventLog(on_append=DiesAfter(file, path, number, torn=torn)))
            assert isinstance(caught.value, Killed) or caught.group_contains(Killed)
            log = EventLog(file.read(), on_append=file)
            kept = len(log)
            assert kept >= number - torn
            ended = await play(agent, second, log)
            assert ended.answer == expected.answer
            turns = [event.content for event in log if isinstance(event, Turned)]
            assert turns == [event.content for event in whole if isinstance(event, Turned)], "a paid turn was repeated"
            written = {event.call for event in log[:kept] if isinstance(event, Replied)}
            assert len(second.calls) == 6 - len(written), "a call with a written reply was made again"
            assert FileLog(path).read() == list(log)


async def test_a_trajectory_that_has_ended_is_not_run_again(counter: ModelCounter) -> None:
    async with scripted_model(script) as model:
        log = EventLog()
        ended = await play(Bench(model, counter).agent(), tools(), log)
        asked = len(model.requests)
        assert await play(Bench(model, counter).agent(), tools(), log) is ended
        assert len(model.requests) == asked


async def test_time_between_crash_and_resumption_does_not_count(counter: ModelCounter) -> None:
    from pinnace.agent import Task, run

    async with scripted_model(script) as model:
        log = EventLog()
        await run(Task("Q"), Bench(model, counter).agent(), tools(), log, clock=iter(range(1000)).__next__)
        cut = EventLog(log[:5])
        later = iter(range(10**6, 10**6 + 1000))
        ended = await run(Task("Q"), Bench(model, counter).agent(), tools(), cut, clock=later.__next__)
        assert ended.t < 1000


async def test_a_log_of_another_policy_is_refused(counter: ModelCounter) -> None:
    async with scripted_model(script) as model:
        log = EventLog()
        await play(Bench(model, counter).agent("none"), tools(), log)
        with pytest.raises(ValueError, match="begun under policy 'none'"):
            await play(Bench(model, counter).agent("truncate"), tools(), EventLog(log[:3]))
