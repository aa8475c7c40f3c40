"""Every parameter of OpenAI's official clients is supported, forced, accepted or refused, and the docs say which."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import openai
import pytest
from pinnace.chat import ChatTokenizer
from pinnace.tiny.task import TOOLS

from e2e import sdk_table
from e2e.gateway import node

from .engines import ScriptedEngine
from .test_proxy import Serve, model, serve, tokenizer  # noqa: F401 - fixtures

# A value that asks for something, for every parameter of the two methods.
VALUES: dict[str, Any] = {
    "access_programs": {"cyber": "standard"},
    "audio": {"voice": "alloy", "format": "wav"},
    "background": True,
    "background_options": {"completion_window": "2h"},
    "context_management": [{"type": "compaction"}],
    "conversation": "conv_1",
    "frequency_penalty": 0.5,
    "function_call": "auto",
    "functions": [{"name": "add"}],
    "image": {"detail": "low"},
    "include": ["reasoning.encrypted_content"],
    "input": "1+2",
    "instructions": "Add.",
    "logit_bias": {"5": 1},
    "logprobs": True,
    "max_completion_tokens": 9,
    "max_output_tokens": 9,
    "max_tokens": 9,
    "max_tool_calls": 3,
    "messages": [{"role": "user", "content": "1+2"}],
    "metadata": {"a": "b"},
    "modalities": ["text", "audio"],
    "model": "m",
    "moderation": {"model": "omni-moderation-latest"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "3"},
    "presence_penalty": 0.5,
    "previous_response_id": None,
    "prompt": {"id": "p"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "reasoning": {"effort": "low"},
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "safety_identifier": "s",
    "seed": 4,
    "service_tier": "flex",
    "stop": ["x"],
    "store": True,
    "stream": False,
    "stream_options": None,
    "temperature": 0.1,
    "text": {"format": {"type": "json_object"}},
    "tool_choice": "required",
    "tools": None,
    "top_logprobs": 3,
    "top_p": 0.5,
    "truncation": "auto",
    "user": "u",
    "verbosity": "low",
    "web_search_options": {"search_context_size": "low"},
}
BARE: dict[str, dict[str, Any]] = {
    "chat.completions.create": {"model": "m", "messages": VALUES["messages"]},
    "responses.create": {"model": "m", "input": VALUES["input"]},
}
TOOLS_OF: dict[str, Any] = {
    "chat.completions.create": TOOLS,
    "responses.create": [{"type": "function", "strict": False, **TOOLS[0]["function"]}],
}


def test_the_table_in_the_docs_is_the_clients_and_the_proxys() -> None:
    assert sdk_table.main(["--check"]) == 0, "run `make sdk-table`"


@pytest.mark.parametrize("method", sdk_table.METHODS)
async def test_the_proxy_does_what_the_table_says(serve: Serve, tokenizer: ChatTokenizer, method: str) -> None:  # noqa: F811
    for name, treatment in sdk_table.parameters(method).items():
        assert "unknown" not in treatment.note, f"`{name}` is new in the client: decide in refusal.py"
        async with serve(ScriptedEngine(tokenizer, ["3<|im_end|>"])) as served:
            function: Any = served.client(served.session())
            for part in method.split("."):
                function = getattr(function, part)
            value = TOOLS_OF[method] if name == "tools" else VALUES[name]
            asked = {**BARE[method], name: value}
            refused = re.search(r"\d{3}", treatment.outcome)
            if refused is None:
                await function(**asked)
                assert served.capture.counts["overridden_" + name] == (treatment.outcome == "forced"), name
            else:
                with pytest.raises(openai.APIStatusError, match=re.escape(treatment.note.split(":")[-1])) as error:
                    await function(**asked)
                assert error.value.status_code == int(refused[0]), name


def test_openais_node_client_has_none_that_the_table_lacks() -> None:
    types = node.installed(Path(__file__).parents[2] / "e2e/rollout/typescript") / "node_modules/openai/resources"
    for method, (file, interface) in {
        "chat.completions.create": ("chat/completions/completions.d.ts", "ChatCompletionCreateParamsBase"),
        "responses.create": ("responses/responses.d.ts", "ResponseCreateParamsBase"),
    }.items():
        (body,) = re.findall(rf"export interface {interface} {{\n(.*?)\n}}\n", (types / file).read_text(), re.DOTALL)
        names = set(re.findall(r"^    (\w+)\??:", body, re.MULTILINE))
        assert names
        assert names <= set(sdk_table.parameters(method))
