"""What the run sees when a server is killed. The last file: nothing is left to test with after it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pinnace.rl.rollout import EngineUnavailable, SamplingParameters
from pinnace.rl.server.probe import connect
from pinnace.rl.server.server import ServerEngine

from .conftest import Served, prompts, start_long

pytestmark = pytest.mark.slow


async def test_a_killed_server_is_unavailable_to_whoever_waits_and_to_whoever_comes(
    engine: ServerEngine, served: Served, model: Path
) -> None:
    prompt = prompts(served.needs.tokenizer, 1)[0]
    await engine.load_weights(served.next_version(), served.other)
    running = await start_long(engine, served, prompt)
    served.process.kill()
    with pytest.raises(EngineUnavailable):
        await running
    for call in (
        engine.generate(prompt, SamplingParameters(max_tokens=1)),
        engine.version(),
        engine.pause(),
        engine.resume(),
        engine.load_weights(served.next_version(), model),
        connect(served.process.url, served.needs),
    ):
        with pytest.raises(EngineUnavailable, match=served.process.url):
            await call
