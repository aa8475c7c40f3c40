"""One shard as a process of its own, to be killed. Not a test."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from pinnace.agent import Agent, AnswerRule, Budget, Endpoint, Limits, ModelCounter, NoTools, Sampling, find_policy
from pinnace.evals import FolderBlobs, Item, Loaded, Plan, Profile, Records, RuleGrader, Shard, Split, work
from pinnace.evals.benchmark import Benchmark
from pinnace.evals.graders.rules import gaia
from pinnace.evals.source import HubData

asked = json.loads(sys.argv[1])
items = tuple(
    Item(f"sum-{number:03d}", f"What is {number}+1?", str(number + 1), groups={"odd": str(number % 2)})
    for number in range(asked["items"])
)
benchmark = Benchmark("sums", "Sums", {"all": Split(HubData("sums", ("*",)))}, lambda _: iter(items),
                      "Answer as <answer>…</answer>.", "tag|final",
                      {"official": Profile(RuleGrader("gaia", gaia))})  # fmt: skip
loaded = Loaded(benchmark, "all", items, "sha256:" + "a" * 64, "sha256:" + "a" * 64)
model = Endpoint.at(asked["url"], "scripted", Sampling(256, 0))
agent = Agent(model, ModelCounter.from_directory(Path(asked["tiny"])), Budget(4096, 256), find_policy("truncate"),
              Limits(turns=20), rule=AnswerRule("tag|final"))  # fmt: skip
plan = Plan(loaded, asked["attempts"], asked["config"], benchmark.profiles["official"], "official")


@asynccontextmanager
async def no_tools(_):
    yield NoTools()


shard = Shard(asked["index"], asked["count"], concurrency=4, ttl=2, checkpoint_seconds=0.1)
asyncio.run(work(plan, agent, no_tools, Records(FolderBlobs(Path(asked["store"])), plan.place), shard))
