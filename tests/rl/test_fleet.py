"""A server is believed only while it proves that it has the trainer's weights. Its faults are scripted here; the real
reference server is in test_reference.py."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path, PurePath

import pytest
from pinnace.rl.config import ProbeConfig
from pinnace.rl.fleet import Connect, Fleet
from pinnace.rl.rollout import EngineUnavailable, Generation, SamplingParameters, WeightsNotLoaded
from pinnace.rl.weights import PROBE, DiskWeights, Probe

ASK = SamplingParameters(max_tokens=4, stop_ids=(9,))


class Scripted:
    """Counts up from the last id; its log-probs of the probe are minus its version, as the published probes say."""

    def __init__(self) -> None:
        self.loaded, self.lies = -1, 0.0
        self.script: deque[Generation | Exception] = deque()
        self.refuses: Exception | None = None
        self.asked: list[tuple[int, ...]] = []
        self.arrived = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.go.set()

    async def generate(self, ids: Sequence[int], parameters: SamplingParameters) -> Generation:
        if parameters.max_tokens == 1:
            return said([1], version=self.loaded, logprob=-self.loaded - self.lies)
        self.asked.append(tuple(ids))
        self.arrived.release()
        await self.go.wait()
        if self.script:
            made = self.script.popleft()
            if isinstance(made, Exception):
                raise made
            return made
        return said(range(ids[-1] + 1, 10), version=self.loaded)

    async def load_weights(self, version: int, path: PurePath) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.loaded = version

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def version(self) -> int:
        return self.loaded


def connect_to(server: Scripted) -> Connect:
    async def connect() -> Scripted:
        return server

    return connect


def said(ids: Sequence[int], *, version: int, logprob: float = -0.5) -> Generation:
    out = tuple(ids)
    return Generation(
        ids=out, behaviour_logprobs=(logprob,) * len(out), policy_versions=(version,) * len(out), finish="stop"
    )


class Rig:
    def __init__(self, folder: Path, servers: int = 1) -> None:
        self.weights = DiskWeights(folder)
        self.servers = [Scripted() for _ in range(servers)]
        named = {f"s{number}": connect_to(one) for number, one in enumerate(self.servers)}
        self.fleet = Fleet(named, self.weights, probe=ProbeConfig(tolerance=0.05), hold_seconds=0.2)

    def publish(self, version: int) -> None:
        probe = Probe(ids=(3,), logprobs=(0.0, -float(version)))
        self.weights.publish(version, lambda folder: (folder / PROBE).write_text(probe.dump()) and None)


@pytest.fixture
async def rig(tmp_path: Path) -> Rig:
    made = Rig(tmp_path)
    made.publish(0)
    await made.fleet.update()
    return made


async def test_a_server_is_asked_once_it_has_the_newest_weights(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with pytest.raises(EngineUnavailable, match=r"no server is admitted: .*not loaded yet"):
        await rig.fleet.generate([5], ASK)
    rig.publish(0)
    assert await rig.fleet.update() == {"s0": 0}
    assert (await rig.fleet.generate([5], ASK)).ids == (6, 7, 8, 9)


async def test_stale_weights_are_caught_by_the_probe_and_the_server_returns_when_it_has_the_right_ones(
    rig: Rig,
) -> None:
    rig.publish(1)
    rig.servers[0].lies = 0.3  # acknowledged, but computed with other weights or a stale cache
    assert "other weights, or a stale cache" in str((await rig.fleet.update())["s0"])
    with pytest.raises(EngineUnavailable):
        await rig.fleet.generate([5], ASK)
    rig.servers[0].lies = 0.0
    assert await rig.fleet.update() == {"s0": 1}


async def test_a_nan_in_the_probe_is_no_proof(rig: Rig) -> None:
    rig.publish(1)
    rig.servers[0].lies = math.nan
    await rig.fleet.update()
    assert rig.fleet.counts["quarantined_InvalidTurn"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        EngineUnavailable("killed"),
        said([6], version=0, logprob=math.nan),
        Generation(ids=(6, 7), behaviour_logprobs=(-1.0,), policy_versions=(0, 0), finish="stop"),
    ],
)
async def test_a_server_at_fault_is_quarantined_and_another_answers(
    tmp_path: Path, fault: Generation | Exception
) -> None:
    rig = Rig(tmp_path, servers=2)
    rig.publish(0)
    await rig.fleet.update()
    rig.servers[0].script.append(fault)
    assert (await rig.fleet.generate([5], ASK)).ids == (6, 7, 8, 9)
    assert isinstance(rig.fleet.status()["s0"], str)
    assert await rig.fleet.update() == {"s0": 0, "s1": 0}


async def test_what_a_server_wrote_while_it_was_found_out_is_asked_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path, servers=2)
    rig.publish(0)
    await rig.fleet.update()
    rig.servers[0].go.clear()
    asking = asyncio.create_task(rig.fleet.generate([5], ASK))
    await rig.servers[0].arrived.acquire()
    rig.publish(1)
    rig.servers[0].lies = 1.0
    await rig.fleet.update()
    assert (await asking).policy_versions == (1, 1, 1, 1)
    assert rig.fleet.counts["thrown_away"] == 1


async def test_a_server_that_does_not_load_keeps_nobody_from_the_newest_weights(tmp_path: Path) -> None:
    rig = Rig(tmp_path, servers=2)
    rig.servers[0].refuses = WeightsNotLoaded("disk full")
    rig.publish(0)
    assert await rig.fleet.update() == {"s0": "disk full", "s1": 0}
    rig.servers[0].refuses = None
    assert await rig.fleet.update() == {"s0": 0, "s1": 0}


async def test_requests_go_where_fewest_are(tmp_path: Path) -> None:
    rig = Rig(tmp_path, servers=2)
    rig.publish(0)
    await rig.fleet.update()
    for one in rig.servers:
        one.go.clear()
    asking = [asyncio.create_task(rig.fleet.generate([5], ASK)) for _ in range(6)]
    for _ in range(3):
        await rig.servers[0].arrived.acquire()
        await rig.servers[1].arrived.acquire()
    for one in rig.servers:
        one.go.set()
    await asyncio.gather(*asking)
    assert [len(one.asked) for one in rig.servers] == [3, 3]


async def test_a_server_that_hangs_in_quarantine_holds_up_nobody(tmp_path: Path) -> None:
    rig = Rig(tmp_path, servers=2)
    rig.publish(0)
    await rig.fleet.update()
    rig.servers[0].go.clear()
    asking = asyncio.create_task(rig.fleet.generate([5], ASK))
    await rig.servers[0].arrived.acquire()
    rig.servers[0].refuses = WeightsNotLoaded("half a file")  # and so it stays paused
    rig.publish(1)
    assert await rig.fleet.update() == {"s0": "half a file", "s1": 1}
    assert (await asking).policy_versions == (1, 1, 1, 1)
