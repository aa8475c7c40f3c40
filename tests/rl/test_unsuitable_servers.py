"""A server that was started wrongly is refused with the remedy; answers that can't be true are not believed.

Real servers are in e2e/rollout. Here one is played that lacks something, or lies: no real one does so on demand.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pinnace.chat import ChatTokenizer
from pinnace.rl.rollout import EngineUnavailable, EngineUnsuitable, SamplingParameters
from pinnace.rl.server.probe import Needs, connect
from pinnace.rl.server.server import ABORTS
from pinnace.rl.types import InvalidTurn, check_tokens
from pinnace.tiny.model import write_tiny_model

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def needs(tmp_path_factory: pytest.TempPathFactory) -> Needs:
    directory = tmp_path_factory.mktemp("unsuitable") / "tiny"
    write_tiny_model(directory)
    return Needs(tokenizer=ChatTokenizer.from_directory(directory), context_tokens=512)


def sglang(needs: Needs) -> dict[str, Any]:
    """What SGLang 0.5.23 answers, by route; a function is given the request."""

    def generate(asked: dict[str, Any]) -> dict[str, Any]:
        tokens = asked["sampling_params"]["max_new_tokens"]
        heat = asked["sampling_params"]["temperature"]
        return {
            "output_ids": [7] * tokens,
            "meta_info": {
                "output_token_logprobs": [[-1.5, 7, None]] * tokens,
                "output_top_logprobs": [[[-0.5 * heat, 9, None]]] * tokens,
                "weight_versions": [{"version": "default", "start": 0, "end": tokens}],
                "finish_reason": {"type": "length"},
            },
        }

    return {
        "/model_info": {"weight_version": "default"},
        "/v1/models": {"data": [{"id": "tiny", "max_model_len": 4096}]},
        "/tokenize": lambda asked: {"tokens": needs.tokenizer.encode(asked["prompt"])},
        "/generate": generate,
        "/pause_generation": {},
        "/continue_generation": {},
        "/update_weights_from_disk": {"success": True},
    }


def vllm(needs: Needs) -> dict[str, Any]:
    """What vLLM 0.32 answers, by route."""

    def generate(asked: dict[str, Any]) -> dict[str, Any]:
        tokens, heat = asked["sampling_params"]["max_tokens"], asked["sampling_params"]["temperature"]
        entry = {"token_id": 7, "logprob": -1.5, "top_logprobs": [{"token_id": 9, "logprob": -0.5 * heat}]}
        span = {"version": "default", "start": 0, "end": tokens}
        choice = {"token_ids": [7] * tokens, "finish_reason": "length", "weight_versions": [span]}
        return {"choices": [{**choice, "logprobs": {"content": [entry] * tokens}}]}

    return {
        "/version": {"version": "0.32.0"},
        "/v1/models": {"data": [{"id": "tiny", "max_model_len": 4096}]},
        "/tokenize": lambda asked: {"tokens": needs.tokenizer.encode(asked["prompt"])},
        "/inference/v1/generate": generate,
        "/weight_info": {"weight_version": "default"},
        "/pause": {},
        "/resume": {},
        "/collective_rpc": {},
        "/reset_prefix_cache": {"success": True},
        "/update_weight_version": {"success": True},
    }


@asynccontextmanager
async def played(routes: dict[str, Any]) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/openapi.json" and request.path not in routes:
            return web.json_response({"paths": {route: {} for route in routes}})
        if request.path not in routes:
            return web.Response(status=404)
        made = routes[request.path]
        if callable(made):
            made = made(await request.json())
        return made if isinstance(made, web.Response) else web.json_response(made)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()


def without(route: str) -> Change:
    return lambda routes: routes.pop(route)


def answering(route: str, changed: Callable[[dict[str, Any]], object]) -> Change:
    """The real answer of `route`, changed."""

    def change(routes: dict[str, Any]) -> None:
        honest = routes[route]

        def lie(asked: dict[str, Any]) -> dict[str, Any]:
            made: dict[str, Any] = honest(asked)
            changed(made)
            return made

        routes[route] = lie

    return change


def raw_sglang(made: dict[str, Any]) -> None:
    made["meta_info"]["output_top_logprobs"] = [[[-0.5, 9, None]]]


def raw_vllm(made: dict[str, Any]) -> None:
    made["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = -0.5


@pytest.mark.parametrize(
    ("kind", "change", "remedy"),
    [
        (vllm, without("/inference/v1/generate"), "--enable-scale-out"),
        (vllm, without("/pause"), "VLLM_SERVER_DEV_MODE=1"),
        (vllm, lambda routes: routes.update({"/collective_rpc": lambda _: web.Response(status=500)}), "Repacking"),
        (vllm, answering("/inference/v1/generate", raw_vllm), "--logprobs-mode processed_logprobs"),
        (sglang, answering("/generate", raw_sglang), "without SGLANG_RETURN_ORIGINAL_LOGPROB"),
        (sglang, without("/pause_generation"), "SGLang 0.5.23"),
        (sglang, answering("/generate", lambda made: made["meta_info"].pop("weight_versions")), "SGLang 0.5.23"),
        (sglang, lambda routes: routes.update({"/openapi.json": web.Response(status=404)}), "/openapi.json on"),
        (sglang, without("/model_info"), "neither SGLang nor vLLM"),
    ],
)
async def test_what_a_server_lacks_is_said_with_its_remedy(
    needs: Needs, kind: Any, change: Change, remedy: str
) -> None:
    routes = kind(needs)
    change(routes)
    async with played(routes) as url:
        with pytest.raises(EngineUnsuitable, match=remedy):
            await connect(url, needs)


@pytest.mark.parametrize("kind", [sglang, vllm])
async def test_a_server_that_has_everything_is_accepted(needs: Needs, kind: Any) -> None:
    async with played(kind(needs)) as url:
        engine = await connect(url, needs)
        assert await engine.version() == 0
        await engine.close()


def nan_sglang(made: dict[str, Any]) -> None:
    made["meta_info"]["output_token_logprobs"][1][0] = None


def nan_vllm(made: dict[str, Any]) -> None:
    made["choices"][0]["logprobs"]["content"] = [{"logprob": -9999.0}] * 2


@pytest.mark.parametrize(
    ("kind", "route", "lie"),
    [
        (sglang, "/generate", nan_sglang),
        (sglang, "/generate", lambda made: made["meta_info"].pop("output_token_logprobs")),
        (sglang, "/generate", lambda made: made["output_ids"].append(9)),
        (sglang, "/generate", lambda made: made["meta_info"]["weight_versions"][0].update(version="latest")),
        (vllm, "/inference/v1/generate", nan_vllm),
        (vllm, "/inference/v1/generate", lambda made: made["choices"][0].update(logprobs=None)),
        (vllm, "/inference/v1/generate", lambda made: made["choices"][0].update(weight_versions=None)),
    ],
)
async def test_log_probs_that_are_nan_or_missing_do_not_pass(needs: Needs, kind: Any, route: str, lie: Change) -> None:
    routes = kind(needs)
    async with played(routes) as url:
        engine = await connect(url, needs)
        answering(route, lie)(routes)
        made = await engine.generate([5, 6], SamplingParameters(max_tokens=2))
        with pytest.raises(InvalidTurn):
            check_tokens(len(made.ids), made.behaviour_logprobs, made.policy_versions)
        await engine.close()


async def test_a_server_that_only_aborts_is_unavailable(needs: Needs) -> None:
    routes = sglang(needs)
    asked: list[int] = []
    async with played(routes) as url:
        engine = await connect(url, needs)

        def abort(request: dict[str, Any]) -> dict[str, Any]:
            asked.append(len(request["input_ids"]))
            return {"output_ids": [], "meta_info": {"finish_reason": {"type": "abort"}}}

        routes["/generate"] = abort
        with pytest.raises(EngineUnavailable, match="aborted a request"):
            await engine.generate([5, 6], SamplingParameters(max_tokens=2))
        await engine.close()
    assert asked == [2] * ABORTS


async def test_nobody_at_the_address_is_unavailable(needs: Needs) -> None:
    async with played({}) as url:
        pass
    with pytest.raises(EngineUnavailable, match=url):
        await connect(url, needs)
