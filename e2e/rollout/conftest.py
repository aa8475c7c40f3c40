"""Real SGLang and vLLM on the CPU, one at a time, with a tiny model that really calls its tool."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pinnace.chat import ChatTokenizer
from pinnace.rl.rollout import Generation, SamplingParameters
from pinnace.rl.server.probe import Needs, connect
from pinnace.rl.server.server import ServerEngine
from pinnace.tiny.model import write_tiny_model
from pinnace.tiny.task import TOOLS, arithmetic_tools

from e2e.oracles.rollout import KINDS, RolloutServer, rollout_server

CONTEXT = 4096


@dataclass
class Served:
    """A running server, the weights it was started with, and others of the same shape."""

    process: RolloutServer
    model: Path
    other: Path
    version: int = 0

    @property
    def needs(self) -> Needs:
        return Needs(tokenizer=ChatTokenizer.from_directory(self.model), context_tokens=CONTEXT)

    def next_version(self) -> int:
        self.version += 1
        return self.version

    def running(self) -> float:
        """How many requests it is sampling."""
        name = {"sglang": "sglang:num_running_reqs", "vllm": "vllm:num_requests_running"}[self.process.kind]
        text = httpx.get(f"{self.process.url}/metrics", timeout=60).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3 that knows the form of a tool call, and of an answer to its result."""
    directory = tmp_path_factory.mktemp("rollout") / "tiny"
    write_tiny_model(directory)
    _teach(directory)
    return directory


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that never end a turn: the end tokens' logits are 0, the others' are spread wide."""
    from safetensors.numpy import load_file, save_file

    directory = tmp_path_factory.mktemp("rollout") / "other"
    write_tiny_model(directory, seed=1)
    weights = load_file(directory / "model.safetensors")
    weights["model.norm.weight"] *= 4
    weights["model.embed_tokens.weight"][[0, 2]] = 0
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="session", params=KINDS)
def served(request: pytest.FixtureRequest, model: Path, other: Path) -> Iterator[Served]:
    with rollout_server(request.param, model) as process:
        yield Served(process, model, other)


@pytest.fixture
async def engine(served: Served) -> AsyncIterator[ServerEngine]:
    """The adapter, at a version of its own with the weights of `model`."""
    if served.process.process is None:  # the test before killed it
        served.process.start()
    engine = await connect(served.process.url, served.needs)
    await engine.load_weights(served.next_version(), served.model)
    yield engine
    await engine.close()


class Reference:
    """The trainer's numerics: transformers in float32."""

    def __init__(self, directory: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    def logprobs(self, prompt: Sequence[int], ids: Sequence[int], temperature: float = 1.0) -> list[float]:
        """Of each of `ids` after `prompt`."""
        import torch

        whole = [*prompt, *ids]
        with torch.inference_mode():
            logits = self._model(torch.tensor([whole])).logits[0].float() / temperature
        rows = torch.log_softmax(logits, -1)
        return [float(rows[at - 1, whole[at]]) for at in range(len(prompt), len(whole))]


@pytest.fixture(scope="session")
def reference(model: Path) -> Reference:
    return Reference(model)


@pytest.fixture(scope="session")
def other_reference(other: Path) -> Reference:
    return Reference(other)


def prompts(tokenizer: ChatTokenizer, count: int) -> list[list[int]]:
    """Prompts of the tiny task, all with the same beginning."""
    return [
        tokenizer.encode(tokenizer.template.render(record["messages"][:1], tools=TOOLS, add_generation_prompt=True))
        for record in arithmetic_tools(count, seed=7)
    ]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.05)


LONG = SamplingParameters(max_tokens=400)


async def start_long(engine: ServerEngine, served: Served, prompt: list[int]) -> asyncio.Task[Generation]:
    """A request that is being sampled."""
    task = asyncio.create_task(engine.generate(prompt, LONG))
    await until(lambda: served.running() > 0)
    return task


def check(made: Generation, expected: Sequence[float]) -> None:
    """Log-probs within float32's rounding in another order of sums."""
    assert all(math.isfinite(logprob) for logprob in made.behaviour_logprobs)
    assert list(made.behaviour_logprobs) == pytest.approx(list(expected), abs=2e-3)


def _teach(directory: Path, *, steps: int = 100, batch: int = 8) -> None:
    """Supervised, on conversations with several systems and spellings of the tool, as agent frameworks write them."""
    import torch
    from pinnace.chat import Renderer, parse_conversation
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that share two cores with others spin against each other
    network: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    renderer = Renderer(ChatTokenizer.from_directory(directory))
    records = arithmetic_tools(steps * batch, seed=0)
    variants: tuple[list[dict[str, Any]], ...] = ([], TOOLS, STRICT)
    systems: tuple[list[dict[str, str]], ...] = ([], [{"role": "system", "content": SYSTEM}])
    for step in range(steps):
        rows, labels = [], []
        for _ in range(batch):
            record = next(records)
            record["messages"] = [*systems[step % 2], *record["messages"]]
            conversation = parse_conversation({**record, "tools": variants[step % 3]})
            for sample in renderer.samples(conversation):
                rows.append(list(sample.input_ids))
                labels.append(list(sample.labels))
        width = max(map(len, rows))
        given = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        wanted = torch.tensor([row + [-100] * (width - len(row)) for row in labels])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        network(given, attention_mask=mask, labels=wanted).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.set_num_threads(threads)
    weights = {name: weight for name, weight in network.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


SYSTEM = "Add the numbers."
STRICT: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds two numbers.",
            "parameters": {
                "properties": {
                    "a": {"title": "A", "type": "integer"},
                    "b": {"title": "B", "type": "integer"},
                },
                "required": ["a", "b"],
                "title": "add_args",
                "type": "object",
                "additionalProperties": False,
            },
        },
    }
]
