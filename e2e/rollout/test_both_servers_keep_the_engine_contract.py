"""One suite, two real servers. What is asserted here is what the trainer's side relies on."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pinnace.chat import ChatTokenizer
from pinnace.rl.rollout import EngineUnsuitable, SamplingParameters, WeightsNotLoaded
from pinnace.rl.server.probe import connect
from pinnace.rl.server.server import ServerEngine
from pinnace.tiny.model import write_tiny_model

from .conftest import LONG, Reference, Served, check, prompts, start_long, until

pytestmark = pytest.mark.slow


@pytest.fixture
def prompt(engine: ServerEngine, served: Served) -> list[int]:
    return prompts(served.needs.tokenizer, 1)[0]


@pytest.fixture
async def rambling(engine: ServerEngine, served: Served) -> int:
    """Weights that talk until their limit; their version."""
    version = served.next_version()
    await engine.load_weights(version, served.other)
    return version


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_behaviour_log_probs_are_the_trainers_at_the_temperature_that_was_sampled(
    engine: ServerEngine, served: Served, reference: Reference, temperature: float
) -> None:
    for prompt in prompts(served.needs.tokenizer, 4):
        made = await engine.generate(prompt, SamplingParameters(temperature=temperature, max_tokens=48))
        check(made, reference.logprobs(prompt, made.ids, temperature))


async def test_the_stop_token_is_part_of_the_answer(
    engine: ServerEngine, served: Served, reference: Reference, prompt: list[int]
) -> None:
    stops = served.needs.tokenizer.stop_ids
    made = await engine.generate(prompt, SamplingParameters(max_tokens=200, stop_ids=stops))
    assert made.finish == "stop"
    assert made.ids[-1] in stops
    check(made, reference.logprobs(prompt, made.ids))


async def test_a_limit_is_kept_to_the_token(engine: ServerEngine, prompt: list[int]) -> None:
    made = await engine.generate(prompt, SamplingParameters(max_tokens=5))
    assert (len(made.ids), made.finish) == (5, "length")


async def test_every_token_has_the_version_of_the_weights(
    engine: ServerEngine, served: Served, prompt: list[int]
) -> None:
    made = await engine.generate(prompt, SamplingParameters(max_tokens=9))
    assert made.policy_versions == (served.version,) * len(made.ids)
    assert await engine.version() == served.version


async def test_requests_at_once_do_not_mix(engine: ServerEngine, served: Served, reference: Reference) -> None:
    asked = prompts(served.needs.tokenizer, 24)
    parameters = SamplingParameters(max_tokens=40)
    for prompt, made in zip(
        asked, await asyncio.gather(*(engine.generate(one, parameters) for one in asked)), strict=True
    ):
        check(made, reference.logprobs(prompt, made.ids))


async def test_after_an_update_a_known_prompt_has_the_new_weights_log_probs(
    engine: ServerEngine, served: Served, other_reference: Reference, prompt: list[int]
) -> None:
    """The prompt's keys and values are in the prefix cache: without a flush they would be those of the old weights."""
    for _ in range(2):
        await engine.generate(prompt, SamplingParameters(max_tokens=8))
    version = served.next_version()
    await engine.load_weights(version, served.other)
    made = await engine.generate(prompt, SamplingParameters(max_tokens=40))
    assert set(made.policy_versions) == {version}
    check(made, other_reference.logprobs(prompt, made.ids))


async def test_a_request_goes_on_under_new_weights_and_says_which_token_is_whose(
    engine: ServerEngine,
    served: Served,
    rambling: int,
    reference: Reference,
    other_reference: Reference,
    prompt: list[int],
) -> None:
    task = await start_long(engine, served, prompt)
    version = served.next_version()
    await engine.load_weights(version, served.model)
    made = await task
    cut = made.policy_versions.index(version)
    assert made.policy_versions == (rambling,) * cut + (version,) * (len(made.ids) - cut)
    assert cut > 0
    old = other_reference.logprobs(prompt, made.ids[:cut])
    check(made, old + reference.logprobs([*prompt, *made.ids[:cut]], made.ids[cut:]))


async def test_a_pause_holds_running_and_new_requests_and_loses_none(
    engine: ServerEngine, served: Served, rambling: int, other_reference: Reference, prompt: list[int]
) -> None:
    running = [await start_long(engine, served, prompt) for _ in range(3)]
    await engine.pause()
    held = asyncio.create_task(engine.generate(prompt, SamplingParameters(max_tokens=3)))
    # The probes that an orchestrator would use, while nothing is sampled.
    assert await engine.version() == rambling
    async with httpx.AsyncClient() as http:
        assert (await http.get(served.process.url + engine.liveness, timeout=60)).status_code == 200
    done, _ = await asyncio.wait([*running, held], timeout=1)
    assert not done
    await engine.resume()
    for task in (*running, held):
        made = await task
        check(made, other_reference.logprobs(prompt, made.ids))


async def test_an_update_during_a_pause_leaves_it_paused(
    engine: ServerEngine, served: Served, other_reference: Reference, prompt: list[int]
) -> None:
    await engine.pause()
    version = served.next_version()
    await engine.load_weights(version, served.other)
    held = asyncio.create_task(engine.generate(prompt, SamplingParameters(max_tokens=3)))
    done, _ = await asyncio.wait([held], timeout=1)
    assert not done
    await engine.resume()
    made = await held
    assert made.policy_versions == (version,) * 3
    check(made, other_reference.logprobs(prompt, made.ids))


async def test_what_somebody_aborts_goes_on_from_its_tokens(
    engine: ServerEngine, served: Served, rambling: int, other_reference: Reference, prompt: list[int]
) -> None:
    task = await start_long(engine, served, prompt)
    route, body = {"sglang": ("/abort_request", {"rid": "", "abort_all": True}), "vllm": ("/abort_requests", {})}[
        served.process.kind
    ]
    async with httpx.AsyncClient() as http:
        assert (await http.post(served.process.url + route, json=body, timeout=60)).status_code == 200
    made = await task
    assert made.finish in {"stop", "length"}
    check(made, other_reference.logprobs(prompt, made.ids))


async def test_who_goes_away_frees_the_server(
    engine: ServerEngine, served: Served, rambling: int, prompt: list[int]
) -> None:
    task = asyncio.create_task(engine.generate(prompt, replace(LONG, max_tokens=3500)))
    await until(lambda: served.running() > 0)
    task.cancel()
    await until(lambda: served.running() == 0)


async def test_weights_that_are_not_there_are_refused_and_the_next_ones_repair_the_server(
    engine: ServerEngine, served: Served, reference: Reference, prompt: list[int], tmp_path: Path
) -> None:
    """vLLM has no weights at all after a failed load, and dies at the next token: it must stay paused."""
    missing = tmp_path / "missing"
    with pytest.raises(WeightsNotLoaded, match=str(missing)):
        await engine.load_weights(served.next_version(), missing)
    held = asyncio.create_task(engine.generate(prompt, SamplingParameters(max_tokens=3)))
    done, _ = await asyncio.wait([held], timeout=1)
    assert not done
    version = served.next_version()
    await engine.load_weights(version, served.model)
    await engine.resume()
    made = await held
    assert made.policy_versions == (version,) * 3
    check(made, reference.logprobs(prompt, made.ids))


async def test_a_prompt_over_the_context_is_refused(engine: ServerEngine) -> None:
    with pytest.raises(EngineUnsuitable, match="context"):
        await engine.generate([5] * 5000, SamplingParameters(max_tokens=5))


async def test_a_server_that_does_not_fit_the_run_is_refused_at_the_start(served: Served, tmp_path: Path) -> None:
    with pytest.raises(EngineUnsuitable, match=r"context of 4096 tokens, the run needs 131072"):
        await connect(served.process.url, replace(served.needs, context_tokens=131_072))
    write_tiny_model(tmp_path)
    rules = json.loads((tmp_path / "tokenizer.json").read_text())
    del rules["model"]["merges"][-50:]
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(EngineUnsuitable, match="another tokenizer than the trainer"):
        await connect(served.process.url, replace(served.needs, tokenizer=ChatTokenizer.from_directory(tmp_path)))
