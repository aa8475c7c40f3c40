"""Agents use OpenAI's unmodified client; the trajectory has every token that was sampled, and no other."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from aiohttp.test_utils import TestServer
from pinnace.chat import ChatTokenizer
from pinnace.rl.capture.capture import Capture
from pinnace.rl.capture.proxy import Proxy
from pinnace.rl.capture.session import Session, Sessions
from pinnace.rl.rollout import EngineUnavailable, Generation, SamplingParameters
from pinnace.rl.types import Fault, Termination, Verdict, load_trajectory
from pinnace.tiny.model import write_tiny_model
from pinnace.tiny.task import TOOLS

from .engines import ScriptedEngine, TinyEngine, check_every_token

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>'
ASK: list[Any] = [{"role": "user", "content": "1+2"}]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rl") / "tiny"
    write_tiny_model(directory)
    return directory


@pytest.fixture(scope="session")
def tokenizer(model: Path) -> ChatTokenizer:
    return ChatTokenizer.from_directory(model)


@dataclass
class Served:
    capture: Capture
    url: str

    def session(self, **kwargs: Any) -> Session:
        return self.capture.sessions.open(**{"id": "0-0-0", "task_id": "t", "group_id": "0", **kwargs})

    def client(self, session: Session, **kwargs: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=session.key, **{"max_retries": 0, **kwargs})


Serve = Callable[..., Any]


@pytest.fixture
def serve(tokenizer: ChatTokenizer) -> Serve:
    @asynccontextmanager
    async def served(engine: Any, **kwargs: Any) -> AsyncIterator[Served]:
        sampling: Any = {
            "train": SamplingParameters(temperature=1.0, max_tokens=100),
            "validation": SamplingParameters(temperature=0.6, max_tokens=100),
        }
        capture = Capture(
            engine=engine, tokenizer=tokenizer, sessions=Sessions(sampling), **{"context_tokens": 4096, **kwargs}
        )
        server = TestServer(Proxy(capture, model="tiny", control_key="control").app())
        await server.start_server()
        try:
            yield Served(capture, str(server.make_url("")).rstrip("/"))
        finally:
            await server.close()

    return served


async def test_a_tool_loop_with_the_openai_client(serve: Serve, tokenizer: ChatTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, [CALL, "3<|im_end|>"])
    async with serve(engine) as served:
        session = served.session()
        client, messages = served.client(session), list(ASK)
        first = await client.chat.completions.create(model="any", messages=messages, tools=TOOLS)  # type: ignore[call-overload]
        (call,) = first.choices[0].message.tool_calls
        assert (first.choices[0].finish_reason, call.function.name) == ("tool_calls", "add")
        assert json.loads(call.function.arguments) == {"a": 1, "b": 2}
        messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "3"}]
        second = await client.chat.completions.create(model="any", messages=messages, tools=TOOLS)  # type: ignore[call-overload]
        assert (second.choices[0].message.content, second.choices[0].finish_reason) == ("3", "stop")
        assert second.usage.completion_tokens == len(engine.calls[1][1].ids)
        trajectory = served.capture.sessions.close(session.key, Termination.ANSWERED)
        assert served.capture.counts == {"merge_fork": 1, "merge_clean": 1}
    (segment,) = trajectory.segments
    assert tokenizer.decode(segment.ids).endswith("3<|im_end|>")
    check_every_token(trajectory, engine)


async def test_what_is_streamed_is_what_is_kept(serve: Serve, tokenizer: ChatTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, ["<think>\nhm\n</think>\n\nI add." + CALL])
    async with serve(engine) as served:
        session = served.session()
        client = served.client(session)
        async with client.chat.completions.stream(
            model="any", messages=ASK, tools=[{**TOOLS[0], "function": {**TOOLS[0]["function"], "strict": True}}],
            stream_options={"include_usage": True},
        ) as stream:  # fmt: skip
            final = await stream.get_final_completion()
        message = final.choices[0].message
        assert (message.content, message.reasoning_content) == ("I add.", "hm")  # type: ignore[attr-defined]
        assert final.usage is not None
        assert message.tool_calls is not None
        assert message.tool_calls[0].function.parsed_arguments == {"a": 1, "b": 2}
        trajectory = served.capture.sessions.close(session.key, Termination.ANSWERED)
    check_every_token(trajectory, engine)


async def test_the_responses_api_with_history_sent_back(serve: Serve, tokenizer: ChatTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, ["<think>\nhm\n</think>\n\n" + CALL, "3<|im_end|>"])
    tools: list[Any] = [{"type": "function", "strict": False, **TOOLS[0]["function"]}]
    async with serve(engine) as served:
        session = served.session()
        client = served.client(session)
        items: list[Any] = [{"role": "user", "content": "1+2"}]
        first = await client.responses.create(model="any", instructions="Add.", input=items, tools=tools)
        assert [item.type for item in first.output] == ["reasoning", "function_call"]
        call = first.output[1]
        items += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "3"}]  # type: ignore[union-attr]
        second = await client.responses.create(model="any", instructions="Add.", input=items, tools=tools)
        assert (second.output_text, second.status) == ("3", "completed")
        trajectory = served.capture.sessions.close(session.key, Termination.ANSWERED)
        assert served.capture.counts["merge_clean"] == 1
    check_every_token(trajectory, engine)


async def test_the_responses_api_by_previous_id_and_as_a_stream(serve: Serve, tokenizer: ChatTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, [CALL, "3<|im_end|>"])
    tools: list[Any] = [{"type": "function", "strict": True, **TOOLS[0]["function"]}]
    async with serve(engine) as served:
        session = served.session()
        client = served.client(session)
        async with client.responses.stream(model="any", input="1+2", tools=tools) as stream:
            kinds = [event.type async for event in stream]
            first = await stream.get_final_response()
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[-1] == "response.completed"
        assert "response.function_call_arguments.delta" in kinds
        call: Any = first.output[0]
        result: list[Any] = [{"type": "function_call_output", "call_id": call.call_id, "output": "3"}]
        async with client.responses.stream(
            model="any", input=result, previous_response_id=first.id, tools=tools
        ) as stream:
            assert (await stream.get_final_response()).output_text == "3"
        trajectory = served.capture.sessions.close(session.key, Termination.ANSWERED)
        assert served.capture.counts["merge_clean"] == 1
    check_every_token(trajectory, engine)


async def test_sampled_spelling_survives_a_client_that_writes_json_its_own_way(
    serve: Serve, tokenizer: ChatTokenizer
) -> None:
    """The model wrote arguments without spaces and a call the template would spell otherwise: its ids stay."""
    odd = '<tool_call>{"arguments":{"b":2,"a":1},"name":"add"}</tool_call><|im_end|>'
    engine = ScriptedEngine(tokenizer, [odd, "3<|im_end|>"])
    async with serve(engine) as served:
        session = served.session()
        client = served.client(session)
        first = await client.chat.completions.create(model="m", messages=ASK, tools=TOOLS)  # type: ignore[call-overload]
        call = first.choices[0].message.tool_calls[0]
        function = {"name": "add", "arguments": '{ "a" : 1,\n "b" : 2 }'}
        calls = [{"id": call.id, "type": "function", "function": function}]
        again = {"role": "assistant", "content": None, "tool_calls": calls}
        messages = [*ASK, again, {"role": "tool", "tool_call_id": call.id, "content": "3"}]
        await client.chat.completions.create(model="m", messages=messages, tools=TOOLS)  # type: ignore[call-overload]
        trajectory = served.capture.sessions.close(session.key, Termination.ANSWERED)
        assert served.capture.counts["merge_clean"] == 1
    check_every_token(trajectory, engine)


async def test_an_answer_cut_by_its_length_goes_on_clean(serve: Serve, tokenizer: ChatTokenizer) -> None:
    engine = ScriptedEngine(
        tokenizer, ["The quick brown fox jumps over the lazy dog." * 4 + "<|im_end|>", "Yes<|im_end|>"]
    )
    async with serve(engine) as served:
        session = served.session()
        client = served.client(session)
        first = await client.chat.completions.create(model="m", messages=ASK, max_tokens=7)
        assert (first.choices[0].finish_reason, len(engine.calls[0][1].ids)) == ("length", 7)
        more: list[Any] = [*ASK, first.choices[0].message, {"role": "user", "content": "Sure?"}]
        await client.chat.completions.create(model="m", messages=more)
        trajectory = served.capture.sessions.close(session.key, Termination.ANSWERED)
        assert served.capture.counts["merge_clean"] == 1
    check_every_token(trajectory, engine)


async def test_a_client_that_drops_the_reasoning_forks_and_loses_nothing(
    serve: Serve, tokenizer: ChatTokenizer
) -> None:
    engine = ScriptedEngine(tokenizer, ["<think>\n" + "I think. " * 9 + "\n</think>\n\n3<|im_end|>", "4<|im_end|>"])
    async with serve(
        engine,
    ) as served:
        session = served.session()
        client = served.client(session)
        await client.chat.completions.create(model="m", messages=ASK)
        more: list[Any] = [*ASK, {"role": "assistant", "content": "3"}, {"role": "user", "content": "2+2"}]
        await client.chat.completions.create(model="m", messages=more)
        trajectory = served.capture.sessions.close(session.key, Termination.ANSWERED)
        assert served.capture.counts == {"merge_fork": 2}
    assert len(trajectory.segments) == 2
    check_every_token(trajectory, engine)


async def test_malformed_output_is_marked_at_its_turn(serve: Serve, tokenizer: ChatTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, ["<tool_call>{not json}</tool_call><|im_end|>", "3<|im_end|>"])
    async with serve(engine) as served:
        session = served.session()
        client = served.client(session)
        first = await client.chat.completions.create(model="m", messages=ASK, tools=TOOLS)  # type: ignore[call-overload]
        assert "not json" in first.choices[0].message.content
        more: list[Any] = [*ASK, first.choices[0].message, {"role": "user", "content": "?"}]
        await client.chat.completions.create(model="m", messages=more, tools=TOOLS)  # type: ignore[call-overload]
        trajectory = served.capture.sessions.close(session.key, Termination.ANSWERED)
    assert [turn.fault for turn in trajectory.turns] == [Fault.FORMAT, None]


async def test_the_agent_cannot_choose_how_it_is_sampled(serve: Serve, tokenizer: ChatTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, ["a<|im_end|>", "b<|im_end|>"])
    async with serve(engine) as served:
        for mode in ("train", "validation"):
            client = served.client(served.session(id=f"0-0-{mode == 'train'}", mode=mode))
            await client.chat.completions.create(
                model="m", messages=ASK, temperature=0.1, top_p=0.5, seed=4, max_tokens=9_999
            )
        assert [parameters.temperature for parameters in engine.parameters] == [1.0, 0.6]
        assert {parameters.max_tokens for parameters in engine.parameters} == {100}
        assert served.capture.counts["overridden_temperature"] == 2
        assert served.capture.counts["overridden_top_p"] == 2


@pytest.mark.parametrize(
    ("field", "value", "status", "alternative"),
    [
        ("frequency_penalty", 0.5, 400, "leave it out"),
        ("presence_penalty", 1.0, 400, "leave it out"),
        ("logit_bias", {"5": 10}, 400, "leave it out"),
        ("n", 2, 501, "send that many requests"),
        ("stop", ["x"], 501, "let the model end its turn"),
        ("logprobs", True, 501, "in the trajectory"),
        ("response_format", {"type": "json_object"}, 501, "ask for JSON in the prompt"),
        ("tool_choice", "required", 501, "say in the prompt"),
        ("parallel_tool_calls", False, 501, "take the first call"),
    ],
)
async def test_what_is_not_offered_names_the_alternative_and_is_counted(
    serve: Serve, tokenizer: ChatTokenizer, field: str, value: Any, status: int, alternative: str
) -> None:
    async with serve(ScriptedEngine(tokenizer)) as served:
        client = served.client(served.session(), max_retries=2)
        with pytest.raises(openai.APIStatusError, match=alternative) as refused:
            await client.chat.completions.create(model="m", messages=ASK, **{field: value})
        assert (refused.value.status_code, refused.value.param) == (status, field)  # type: ignore[attr-defined]
        assert served.capture.counts == {field: 1, f"refused_{status}": 1}  # not repeated, though it may be a 5xx


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/completions", {"prompt": "x"}, 501, "use /v1/chat/completions"),
        ("/v1/messages", {}, 501, "use /v1/chat/completions"),
        ("/v1/files", {}, 501, "use /v1/chat/completions"),
        ("/v1/chat/completions", {"messages": ASK, "colour": "red"}, 400, "unknown field `colour`"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "image_url",
        ),
        ("/v1/chat/completions", {"messages": [*ASK, {"role": "assistant", "content": "x"}]}, 400, "half a turn"),
        ("/v1/chat/completions", {"messages": ASK, "max_tokens": "many"}, 400, "positive integer"),
        ("/v1/responses", {"input": "x", "background": True}, 501, "use `stream`"),
        ("/v1/responses", {"input": "x", "text": {"format": {"type": "json_object"}}}, 501, "ask for JSON"),
        ("/v1/responses", {"input": "x", "tools": [{"type": "web_search"}]}, 501, "function tool"),
        ("/v1/responses", {"input": [{"type": "item_reference", "id": "1"}]}, 501, "send messages"),
        ("/v1/responses", {"input": "x", "previous_response_id": "resp_0"}, 400, "no response 'resp_0'"),
    ],
)
async def test_other_routes_and_bodies_are_refused(
    serve: Serve, tokenizer: ChatTokenizer, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    async with serve(ScriptedEngine(tokenizer)) as served, httpx.AsyncClient() as http:
        headers = {"Authorization": f"Bearer {served.session().key}"}
        reply = await http.post(served.url + path, json={"model": "m", **body}, headers=headers)
        assert reply.status_code == status
        assert words in reply.json()["error"]["message"]


async def test_a_session_is_found_by_key_header_or_path(serve: Serve, tokenizer: ChatTokenizer) -> None:
    async with serve(ScriptedEngine(tokenizer, ["a<|im_end|>"] * 3)) as served:
        session = served.session()
        ways = [
            openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=session.key),
            openai.AsyncOpenAI(
                base_url=f"{served.url}/v1", api_key="x", default_headers={"X-Pinnace-Session": session.key}
            ),
            openai.AsyncOpenAI(base_url=f"{served.url}/session/{session.key}/v1", api_key="x"),
        ]
        for client in ways:
            assert (await client.models.list()).data[0].id == "tiny"
            await client.chat.completions.create(model="m", messages=ASK)
        with pytest.raises(openai.AuthenticationError, match="set OPENAI_API_KEY"):
            await openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="x").models.list()


async def test_sockets_are_held_during_an_update(serve: Serve, tokenizer: ChatTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, ["a<|im_end|>"])
    async with serve(engine) as served:
        served.capture.gate.close()
        asked = asyncio.create_task(served.client(served.session()).chat.completions.create(model="m", messages=ASK))
        done, _ = await asyncio.wait([asked], timeout=0.2)
        assert not done
        assert not engine.started.is_set()
        engine.version = 1
        served.capture.gate.open()
        assert (await asked).choices[0].message.content == "a"
        assert engine.calls[0][1].policy_versions == (1, 1)


async def test_who_cannot_be_held_any_longer_is_told_when_to_come_back(serve: Serve, tokenizer: ChatTokenizer) -> None:
    async with serve(ScriptedEngine(tokenizer), hold_seconds=0.05) as served:
        served.capture.gate.close()
        with pytest.raises(openai.RateLimitError) as refused:
            await served.client(served.session()).chat.completions.create(model="m", messages=ASK)
        assert refused.value.response.headers["Retry-After"] == "5"


async def test_a_lost_server_is_retried_by_the_client_itself(serve: Serve, tokenizer: ChatTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, ["a<|im_end|>"])
    engine.failures.append(EngineUnavailable("connection reset"))
    async with serve(engine) as served:
        session = served.session()
        with pytest.raises(openai.InternalServerError) as refused:
            await served.client(session).chat.completions.create(model="m", messages=ASK)
        assert (refused.value.status_code, refused.value.response.headers["Retry-After"]) == (503, "5")
        await served.client(session).chat.completions.create(model="m", messages=ASK)
        check_every_token(served.capture.sessions.close(session.key, Termination.ANSWERED), engine)


@pytest.mark.parametrize(
    "lie",
    [
        Generation(ids=(9, 2), behaviour_logprobs=(-1.0, math.nan), policy_versions=(0, 0), finish="stop"),
        Generation(ids=(9, 2), behaviour_logprobs=(-1.0,), policy_versions=(0, 0), finish="stop"),
        Generation(ids=(9, 2), behaviour_logprobs=(-1.0, -1.0), policy_versions=(0,), finish="stop"),
    ],
)
async def test_an_answer_that_cannot_be_true_is_not_kept(
    serve: Serve, tokenizer: ChatTokenizer, lie: Generation
) -> None:
    engine = ScriptedEngine(tokenizer)
    engine.failures.append(lie)
    async with serve(engine) as served:
        session = served.session()
        with pytest.raises(openai.InternalServerError, match="can't be true"):
            await served.client(session).chat.completions.create(model="m", messages=ASK)
        assert served.capture.counts["engine_faults"] == 1
        assert served.capture.sessions.close(session.key, Termination.ANSWERED).segments == ()


async def test_an_answer_that_nobody_heard_is_not_kept(serve: Serve, tokenizer: ChatTokenizer) -> None:
    engine = ScriptedEngine(tokenizer, ["a<|im_end|>", "b<|im_end|>"])
    engine.go.clear()
    async with serve(engine) as served:
        session = served.session()
        asked = asyncio.create_task(served.client(session).chat.completions.create(model="m", messages=ASK))
        await engine.started.wait()
        asked.cancel()
        await asyncio.wait([asked])
        while served.capture.in_flight and not served.capture.counts["abandoned"]:
            engine.go.set()
            await asyncio.sleep(0)
        reply = await served.client(session).chat.completions.create(model="m", messages=ASK)
        trajectory = served.capture.sessions.close(session.key, Termination.ANSWERED)
    assert len(trajectory.turns) == 1
    assert reply.choices[0].message.content == tokenizer.decode(engine.calls[-1][1].ids).removesuffix("<|im_end|>")


async def test_a_prompt_over_the_context_ends_in_openai_s_own_error(serve: Serve, tokenizer: ChatTokenizer) -> None:
    async with serve(ScriptedEngine(tokenizer), context_tokens=5) as served:
        session = served.session()
        with pytest.raises(openai.BadRequestError) as refused:
            await served.client(session).chat.completions.create(model="m", messages=ASK)
        assert refused.value.code == "context_length_exceeded"
        closed = served.capture.sessions.close(session.key, Termination.ANSWERED)
        assert closed.termination is Termination.CONTEXT_LIMIT


async def test_sessions_are_opened_rewarded_and_ended_over_http(serve: Serve, tokenizer: ChatTokenizer) -> None:
    async with (
        serve(ScriptedEngine(tokenizer, ["a<|im_end|>"])) as served,
        httpx.AsyncClient(base_url=served.url) as http,
    ):
        control = {"Authorization": "Bearer control"}
        named = {"id": "7-1-0", "task_id": "t", "group_id": "7"}
        assert (await http.post("/rl/sessions", json=named)).status_code == 401
        for wrong in ({"id": "7-1-0"}, {**named, "mode": "sleep"}):
            assert (await http.post("/rl/sessions", json=wrong, headers=control)).status_code == 400
        opened = (await http.post("/rl/sessions", json=named, headers=control)).json()
        client = openai.AsyncOpenAI(base_url=served.url + opened["path"], api_key="x")
        await client.chat.completions.create(model="m", messages=ASK)
        agent = {"Authorization": f"Bearer {opened['key']}"}
        assert (await http.post("/reward", json={"value": 0.25, "turn": 0}, headers=agent)).status_code == 200
        assert (await http.post("/reward", json={"value": "nan"}, headers=agent)).status_code == 400
        assert (await http.post("/reward", json={"value": 1.0}, headers=agent)).status_code == 200
        how = {"termination": "bored"}
        assert (await http.post(f"/rl/sessions/{opened['key']}/end", json=how, headers=control)).status_code == 400
        ended = await http.post(f"/rl/sessions/{opened['key']}/end", json={}, headers=control)
        trajectory = load_trajectory(ended.content)
        assert (trajectory.id, trajectory.reward.verdict, trajectory.turns[0].reward) == ("7-1-0", Verdict.RIGHT, 0.25)
        assert (await http.post("/reward", json={"value": 1.0}, headers=agent)).status_code == 401


async def test_without_a_reward_the_verdict_is_unknown(serve: Serve, tokenizer: ChatTokenizer) -> None:
    async with serve(ScriptedEngine(tokenizer)) as served:
        session = served.session()
        closed = served.capture.sessions.close(session.key, Termination.ANSWERED)
        assert closed.reward.verdict is Verdict.UNKNOWN


async def test_every_trained_token_of_a_real_model_was_sampled_and_has_its_log_prob(
    serve: Serve, model: Path, tokenizer: ChatTokenizer
) -> None:
    """Three conversations of a random Qwen3, whose output is rubbish: broken UTF-8, stray markers, cut answers."""
    import torch

    engine = TinyEngine(model)
    async with serve(engine) as served:
        for number in range(3):
            engine.calls.clear()
            session = served.session(id=f"{number}-0-0")
            client = served.client(session)
            messages: list[Any] = [{"role": "user", "content": f"{number}+2"}]
            for turn in range(3):
                reply = await client.chat.completions.create(model="m", messages=messages, tools=TOOLS, max_tokens=24)  # type: ignore[call-overload]
                messages += [reply.choices[0].message, {"role": "user", "content": f"And {turn}?"}]
            trajectory = served.capture.sessions.close(session.key, Termination.ANSWERED)
            check_every_token(trajectory, engine)
            for part in trajectory.segments:
                with torch.inference_mode():
                    logits = engine.model(torch.tensor([part.ids])).logits[0].float()
                rows = torch.log_softmax(logits, -1)
                for at_turn in part.turns:
                    there = [rows[at - 1, part.ids[at]].item() for at in range(at_turn.start, at_turn.end)]
                    assert there == pytest.approx(at_turn.behaviour_logprobs, abs=1e-4)
        assert served.capture.counts["merge_clean"] > served.capture.counts["merge_fork"] / 2
