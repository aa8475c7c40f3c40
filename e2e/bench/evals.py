"""The agent loop's own cost beside Inspect AI, view() on a 128K-token log, and 1,000 trajectories in one worker.

The model is a mock in the same process on both sides, so that what is measured is the harness. Inspect runs in an
environment of its own (e2e/oracle.py), without its realtime log; its mock is given usage, since without it Inspect
counts tokens with a vocabulary that it downloads. Both are warm: what is done once is not counted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pinnace.agent import (
    Agent,
    Budget,
    EventLog,
    Limits,
    ModelCounter,
    Policy,
    Reply,
    Task,
    ToolRequest,
    Usage,
    find_policy,
    run,
    view,
)
from pinnace.agent import tools as outcomes
from pinnace.agent.events import Began, Call, Event, Replied, Turned
from pinnace.agent.policy import KeepLast
from pinnace.tiny.model import write_tiny_model

from e2e.oracle import ask_inspect

TURNS = int(os.environ.get("PINNACE_BENCH_TURNS", "100"))
TRAJECTORIES = int(os.environ.get("PINNACE_BENCH_TRAJECTORIES", "1000"))
ROUNDS = 5
_WORDS = [
    "the",
    "boat",
    "was",
    "seen",
    "near",
    "the",
    "port",
    "by",
    "the",
    "keeper",
    "of",
    "the",
    "light",
    "who",
    "wrote",
    "down",
    "wind",
    "and",
    "tide",
]
RESULT = (" ".join(itertools.islice(itertools.cycle(_WORDS), 450)))[:2048]

INSPECT = '''
import asyncio, json, resource, sys, tempfile, time
from inspect_ai import Task, eval_async
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.tool import tool
asked = json.load(sys.stdin)

@tool
def search():
    async def execute(query: str) -> str:
        """Searches.

        Args:
            query: what for
        """
        return asked["result"]
    return execute

def outputs(turns):
    for number in range(turns):
        output = ModelOutput.for_tool_call("mockllm/model", "search", {"query": f"topic {number}"})
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        yield output
    output = ModelOutput.for_tool_call("mockllm/model", "submit", {"answer": "42"})
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    yield output

async def play(turns, folder):
    task = Task(dataset=[Sample(input="Where?", target="42")], solver=react(tools=[search()]))
    model = get_model("mockllm/model", custom_outputs=outputs(turns), memoize=False)
    return await eval_async(task, model=model, log_dir=folder, log_realtime=False, score=False)

async def main():
    with tempfile.TemporaryDirectory() as folder:
        await play(2, folder)  # imports and everything that is made once
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        logs = await play(asked["turns"], folder)
        after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
        assert logs[0].status == "success", logs[0].error
        turns = sum(m.role == "assistant" for m in logs[0].samples[0].messages)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(json.dumps({"cpu": cpu, "wall": wall, "turns": turns, "rss": after.ru_maxrss / 1024}))

import os, contextlib, io
os.environ["INSPECT_DISPLAY"] = "none"
asyncio.run(main())
'''


class Mock:
    """Calls `search` for so many turns, then answers."""

    name = "mock"

    def __init__(self, turns: int, *, pause: float = 0) -> None:
        self._turns = turns
        self._pause = pause

    async def complete(self, messages: Sequence[Mapping[str, Any]], *_: object, **__: object) -> Reply:
        await asyncio.sleep(self._pause)
        number = sum(message["role"] == "assistant" for message in messages)
        if number >= self._turns:
            return Reply("<answer>42</answer>", usage=Usage(prompt=1, completion=1))
        request = ToolRequest("search", json.dumps({"query": f"topic {number}"}))
        return Reply("", None, (request,), "tool_calls", Usage(prompt=1, completion=1))


class Search:
    """One tool with a result of 2 KB, or so many times that."""

    def __init__(self, times: int = 1) -> None:
        self._result = RESULT * times

    async def schemas(self) -> Sequence[Mapping[str, Any]]:
        return [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> outcomes.Reply:  # noqa: ARG002 - the protocol's
        return outcomes.Reply("ok", f"{arguments['query']}: {self._result}")


def cpu() -> float:
    """Seconds of CPU of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory() -> float:
    """Resident MiB now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def agent(counter: ModelCounter, policy: Policy, turns: int, pause: float = 0) -> Agent:
    limits = Limits(turns=turns + 2, duplicate_queries=10**6, repeats=10**6)
    return Agent(Mock(turns, pause=pause), counter, Budget(1 << 20, 1024), policy, limits)


def overhead(counter: ModelCounter, folder: Path) -> None:
    """CPU a turn, ours and Inspect's, in alternation."""
    print(f"one agent of {TURNS} turns, mock model, tool results of 2 KB")
    ours, theirs = [], []
    asyncio.run(run(Task("Where?"), agent(counter, find_policy("truncate"), 2), Search(), EventLog()))  # warm
    with tempfile.TemporaryDirectory(prefix="pinnace-bench-") as scratch:
        script = Path(scratch) / "peer.py"
        script.write_text(INSPECT)
        for _ in range(ROUNDS):
            fresh, log = ModelCounter.from_directory(folder), EventLog()  # it remembers what it has counted
            before, began = cpu(), time.perf_counter()
            asyncio.run(run(Task("Where?"), agent(fresh, find_policy("truncate"), TURNS), Search(), log))
            used, wall = cpu() - before, time.perf_counter() - began
            turns = sum(isinstance(event, Turned) for event in log)
            ours.append((used / turns, wall / turns))
            peer = ask_inspect(script, {"turns": TURNS, "result": RESULT}, timeout=300)
            theirs.append((peer["cpu"] / peer["turns"], peer["wall"] / peer["turns"]))
            print(f"  pinnace {1e3 * ours[-1][0]:6.2f} ms cpu a turn, {1 / ours[-1][1]:6.0f} turns/s    "
                  f"inspect {1e3 * theirs[-1][0]:6.2f} ms, {1 / theirs[-1][1]:6.0f} turns/s, {peer['rss']:.0f} MiB",
                  flush=True)  # fmt: skip
    mine, peers = (statistics.median(each[0] for each in side) for side in (ours, theirs))
    rates = [statistics.median(1 / each[1] for each in side) for side in (ours, theirs)]
    print(f"  => cpu a turn {1e3 * mine:.2f} against {1e3 * peers:.2f} ms, ratio {peers / mine:.1f}; "
          f"turns/s by the clock, ratio {rates[0] / rates[1]:.1f}")  # fmt: skip


def long_log(counter: ModelCounter, tokens: int, turns: int = 100) -> list[Event]:
    """A log whose full view has about so many tokens."""
    each = counter.text(RESULT)
    repeat = max(1, round(tokens / turns / each))
    events: list[Event] = [Began(question="Where?", system="You scout.")]
    for number in range(turns):
        call = Call(id=f"r{number}-0", name="search", arguments={"query": f"topic {number}"})
        text = f"{number} " + RESULT * repeat
        events += [Turned(content=f"step {number}", calls=(call,)),
                   Replied(call=call.id, name="search", outcome="ok", text=text)]  # fmt: skip
    return events


def views(counter: ModelCounter) -> None:
    """Time of one more view() of a long log, everything but its last step counted before, as in the loop."""
    events = long_log(counter, 128_000)
    policies = {
        "none": (find_policy("none"), Budget(1 << 20, 1024)),
        "truncate": (find_policy("truncate"), Budget(1 << 20, 1024)),
        "keep-last-k": (Policy(name="k", keep_last=KeepLast(results=5, every=5)), Budget(1 << 20, 1024)),
        "truncate, over the budget": (find_policy("truncate"), Budget(64_000, 1024)),
    }
    print("view() of a log of 100 turns")
    for name, (policy, budget) in policies.items():
        view(events[:-2], policy, counter, budget)
        times = []
        for _ in range(20):
            began = time.perf_counter()
            shown = view(events, policy, counter, budget)
            times.append(time.perf_counter() - began)
        print(f"  {name:26} {shown.full_tokens:7,} tokens in the log, first {1e3 * times[0]:6.2f} ms, "
              f"then {1e3 * statistics.median(times):6.2f} ms", flush=True)  # fmt: skip


def bookkeeping(folder: Path) -> None:
    """Our share of a 100-turn trajectory that reaches 128K tokens, if the model takes 2 s a turn: the whole loop, and
    every result counted for the first time.
    """
    turns, fresh, log = 100, ModelCounter.from_directory(folder), EventLog()
    times = round(128_000 / turns / fresh.text(RESULT))
    before = cpu()
    asyncio.run(run(Task("Where?"), agent(fresh, find_policy("truncate"), turns), Search(times), log))
    used = cpu() - before
    longest = max(event.view_tokens for event in log if isinstance(event, Turned))
    print(f"a trajectory of {turns} turns and {longest:,} tokens: {used:.2f} s of cpu, "
          f"{100 * used / (turns * 2):.2f} % of {turns} turns of 2 s", flush=True)  # fmt: skip


def many(counter: ModelCounter) -> None:
    """Memory of many trajectories at once, each of 20 turns with results of 2 KB."""
    turns = 20
    before, began, used = memory(), time.perf_counter(), cpu()
    peak = 0.0

    async def main() -> None:
        nonlocal peak
        shared = agent(counter, find_policy("truncate"), turns, pause=1)

        async def one() -> None:
            await run(Task("Where?"), shared, Search(), logs[next(numbers)])

        logs, numbers = [EventLog() for _ in range(TRAJECTORIES)], itertools.count()
        running = asyncio.gather(*(one() for _ in range(TRAJECTORIES)))
        while not running.done():
            peak = max(peak, memory())
            await asyncio.sleep(0.2)
        await running

    asyncio.run(main())
    total = turns * TRAJECTORIES
    each, seconds = (cpu() - used) / total * 1e3, time.perf_counter() - began
    print(f"{TRAJECTORIES} trajectories of {turns} turns at once: {peak:.0f} MiB resident, {peak - before:.0f} theirs; "
          f"{each:.2f} ms cpu a turn, {seconds:.0f} s")  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pinnace-bench-") as folder:
        write_tiny_model(Path(folder))
        counter = ModelCounter.from_directory(Path(folder))
        overhead(counter, Path(folder))
        views(counter)
        bookkeeping(Path(folder))
        many(counter)


if __name__ == "__main__":
    main()
