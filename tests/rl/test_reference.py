"""The reference rollout server: real HTTP, a real Qwen3 of half a million parameters, and the trainer's own engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp.test_utils import TestServer
from pinnace.rl.config import ProbeConfig
from pinnace.rl.engine.export import export
from pinnace.rl.engine.policy import Policy
from pinnace.rl.engine.torch_engine import TorchEngine
from pinnace.rl.fleet import Fleet
from pinnace.rl.reference.client import ReferenceServer
from pinnace.rl.reference.decoder import Decoder
from pinnace.rl.reference.server import Server
from pinnace.rl.rollout import SamplingParameters, WeightsNotLoaded
from pinnace.rl.types import Sample
from pinnace.rl.weights import PROBE, DiskWeights, Probe
from pinnace.tiny.model import write_tiny_model

IDS = (5, 6, 7)
ASK = SamplingParameters(max_tokens=12, temperature=0.8)


class Trainer:
    """One that has weights to publish, and changes them."""

    def __init__(self, base: Path, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.base, self.weights = base, DiskWeights(folder)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self.model: Any = model
        self.engine = TorchEngine(Policy(model, temperature=0.8, gradient_checkpointing=False), token_budget=1024)

    def publish(self, version: int, *, probe: Probe | None = None) -> None:
        known = probe or Probe(ids=IDS, logprobs=self.engine.next_logprobs(IDS))

        def write(folder: Path) -> None:
            export(self.engine, self.base, folder)
            (folder / PROBE).write_text(known.dump())

        self.weights.publish(version, write)

    def learn(self) -> None:
        with torch.no_grad():
            self.model.lm_head.weight.mul_(1.5)

    def logprobs(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Of everything after the prompt."""
        mask = tuple(place >= len(IDS) for place in range(len(ids)))
        zeros = (0.0,) * len(ids)
        sample = Sample(
            trajectory_id="t", group_id="g", ids=tuple(ids), loss_mask=mask, behaviour_logprobs=zeros,
            policy_versions=(0,) * len(ids), advantages=zeros, weights=zeros,
        )  # fmt: skip
        return self.engine.logprobs([sample])[0][len(IDS) :]


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    write_tiny_model(tmp_path / "base")
    return Trainer(tmp_path / "base", tmp_path / "weights")


@pytest.fixture
async def server(trainer: Trainer) -> AsyncIterator[ReferenceServer]:
    async with TestServer(Server(Decoder(trainer.base)).app()) as served:
        client = ReferenceServer(str(served.make_url("")).rstrip("/"))
        yield client
        await client.aclose()


def fleet_of(server: ReferenceServer, trainer: Trainer) -> Fleet:
    probe = ProbeConfig(tolerance=1e-3)

    async def connect() -> ReferenceServer:
        return server

    return Fleet({"s": connect}, trainer.weights, probe=probe, temperature=0.8, hold_seconds=5)


async def test_what_it_samples_has_the_trainers_log_probs(trainer: Trainer, server: ReferenceServer) -> None:
    trainer.publish(0)
    fleet = fleet_of(server, trainer)
    assert await fleet.update() == {"s": 0}
    for made in await asyncio.gather(*(fleet.generate(IDS, ASK) for _ in range(3))):
        there = trainer.logprobs((*IDS, *made.ids))
        assert made.behaviour_logprobs == pytest.approx(there, abs=1e-4)
        assert set(made.policy_versions) == {0}


async def test_an_update_cuts_answers_short_and_they_go_on_with_the_new_weights(
    trainer: Trainer, server: ReferenceServer
) -> None:
    trainer.publish(0)
    fleet = fleet_of(server, trainer)
    await fleet.update()
    asking = asyncio.create_task(fleet.generate(IDS, replace(ASK, max_tokens=500)))
    for _ in range(1000):
        if fleet.values()["server_in_flight.server.s"]:
            break
        await asyncio.sleep(0.01)
    trainer.learn()
    trainer.publish(1)
    assert await fleet.update() == {"s": 1}
    made = await asking
    assert len(made.ids) == 500
    first = made.policy_versions.index(1)
    assert made.policy_versions == (0,) * first + (1,) * (500 - first)
    there = trainer.logprobs((*IDS, *made.ids))
    assert made.behaviour_logprobs[first:] == pytest.approx(there[first:], abs=1e-3), "no stale cache"


async def test_a_pause_holds_what_runs_and_what_comes(trainer: Trainer, server: ReferenceServer) -> None:
    trainer.publish(0)
    await fleet_of(server, trainer).update()
    running = asyncio.create_task(server.generate(IDS, replace(ASK, max_tokens=900)))
    await asyncio.sleep(0.3)
    await server.pause()
    new = asyncio.create_task(server.generate(IDS, ASK))
    done, _ = await asyncio.wait([running, new], timeout=0.3)
    assert not done
    await server.resume()
    assert (len((await running).ids), len((await new).ids)) == (900, 12)


async def test_weights_that_are_not_the_trainers_are_found_out(trainer: Trainer, server: ReferenceServer) -> None:
    before = Probe(ids=IDS, logprobs=trainer.engine.next_logprobs(IDS))
    trainer.learn()
    trainer.publish(0, probe=before)
    assert "other weights" in str((await fleet_of(server, trainer).update())["s"])


async def test_a_damaged_folder_is_refused_and_not_served(trainer: Trainer, server: ReferenceServer) -> None:
    trainer.publish(0)
    newest = trainer.weights.newest()
    assert newest is not None
    (Path(newest.uri) / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(WeightsNotLoaded, match="500"):
        await server.load_weights(0, Path(newest.uri))
    assert await server.version() == -1
