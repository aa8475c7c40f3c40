"""The server that the official conformance suite asks for, on the official SDK: `python everything.py PORT_FILE`.

One set of tools for both eras: a tool that needs the client's input returns `input_required` where the revision has
that, else asks on the open connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

Context = ServerRequestContext[Any, Any]
Handler = Callable[[Context, types.CallToolRequestParams], Awaitable[types.CallToolResult | types.InputRequiredResult]]

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA=="
STATE_KEY = secrets.token_bytes(16)
TOOLS: dict[str, tuple[Handler, dict[str, Any]]] = {}
OBJECT: dict[str, Any] = {"type": "object"}


def tool(name: str, schema: Mapping[str, Any] = OBJECT) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        TOOLS[name] = (handler, dict(schema))
        return handler

    return add


def text(said: str, *, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=said)], is_error=is_error)


def fixed(name: str, *blocks: dict[str, Any]) -> None:
    content = [types.CallToolResult.model_validate({"content": [block]}).content[0] for block in blocks]

    async def handler(_ctx: Context, _params: types.CallToolRequestParams) -> types.CallToolResult:
        return types.CallToolResult(content=list(content))

    TOOLS[name] = (handler, OBJECT)


def embedded(name: str, mime: str, said: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": f"test://{name}", "mimeType": mime, "text": said}}


IMAGE = {"type": "image", "data": PNG, "mimeType": "image/png"}
fixed("test_simple_text", {"type": "text", "text": "This is a simple text response for testing."})
fixed("test_image_content", IMAGE)
fixed("test_audio_content", {"type": "audio", "data": WAV, "mimeType": "audio/wav"})
fixed("test_embedded_resource", embedded("embedded-resource", "text/plain", "This is an embedded resource content."))
fixed(
    "test_multiple_content_types",
    {"type": "text", "text": "Multiple content types test:"},
    IMAGE,
    embedded("mixed-content-resource", "application/json", '{"test":"data","value":123}'),
)
_ADDRESS = {
    "$anchor": "addressDef",
    "type": "object",
    "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
}
SCHEMA_2020 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": _ADDRESS},
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@tool("json_schema_2020_12_tool", SCHEMA_2020)
async def schema_tool(_ctx: Context, _params: types.CallToolRequestParams) -> types.CallToolResult:
    return text("ok")


_HEADER = {"type": "string", "x-mcp-header": "Region"}


@tool("test_custom_header", {"type": "object", "properties": {"region": _HEADER}})
async def header_tool(_ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    return text(str((params.arguments or {}).get("region")))


@tool("test_error_handling")
async def error_tool(_ctx: Context, _params: types.CallToolRequestParams) -> types.CallToolResult:
    return text("This tool intentionally returns an error for testing", is_error=True)


@tool("test_tool_with_logging")
async def logging_tool(ctx: Context, _params: types.CallToolRequestParams) -> types.CallToolResult:
    for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", said, related_request_id=ctx.request_id)
        await anyio.sleep(0.05)
    return text("logged")


@tool("test_tool_with_progress")
async def progress_tool(ctx: Context, _params: types.CallToolRequestParams) -> types.CallToolResult:
    token = (ctx.meta or {}).get("progress_token")
    for done in (0, 50, 100):
        if token is not None:
            await ctx.session.send_progress_notification(token, done, 100, related_request_id=str(ctx.request_id))
        await anyio.sleep(0.05)
    return text("progressed")


def ask(prompt: str) -> dict[str, Any]:
    message = {"role": "user", "content": {"type": "text", "text": prompt}}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": 100}}


def elicit(message: str, properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = required
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


ROOTS: dict[str, Any] = {"method": "roots/list", "params": {}}
_RESULTS: dict[str, Any] = {
    "sampling/createMessage": types.CreateMessageResult,
    "elicitation/create": types.ElicitResult,
    "roots/list": types.ListRootsResult,
}
_NEEDS = {"sampling/createMessage": "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}


def required(requests: Mapping[str, Any], state: str | None = None) -> types.InputRequiredResult:
    found: dict[str, Any] = {"inputRequests": dict(requests), "resultType": "input_required"}
    if state is not None:
        found["requestState"] = state
    return types.InputRequiredResult.model_validate(found)


def answers(params: types.CallToolRequestParams) -> dict[str, Any]:
    given = params.input_responses or {}
    return {key: each.model_dump(by_alias=True, mode="json") for key, each in given.items()}


async def once(ctx: Context, params: types.CallToolRequestParams, question: dict[str, Any]) -> dict[str, Any] | None:
    """The client's answer to one question, in whatever way its revision has; None: it must be asked first."""
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return answers(params).get("question")
    kinds: dict[str, Any] = {
        "sampling/createMessage": types.CreateMessageRequest,
        "elicitation/create": types.ElicitRequest,
    }
    request = kinds[question["method"]].model_validate(question)
    kind = _RESULTS[question["method"]]
    answer = await ctx.session.send_request(request, kind, metadata=_related(ctx))
    return dict(answer.model_dump(by_alias=True, mode="json"))


def _related(ctx: Context) -> Any:
    from mcp.shared.message import ServerMessageMetadata

    return ServerMessageMetadata(related_request_id=ctx.request_id)


def questioning(
    name: str, schema: Mapping[str, Any], question: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    async def handler(
        ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        asked = question(dict(params.arguments or {}))
        answer = await once(ctx, params, asked)
        if answer is None:
            return required({"question": asked})
        if "action" in answer:
            return text(f"{said}: action={answer['action']}, content={answer.get('content')}")
        return text(f"{said}: {answer['content'].get('text')}")

    TOOLS[name] = (handler, dict(schema))


def _text_argument(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}


_USER = {
    "username": {"type": "string", "description": "User's response"},
    "email": {"type": "string", "description": "User's email address"},
}
_DEFAULTS = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
_OPTIONS = ["option1", "option2", "option3"]
_TITLED = [{"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second", "Third"), 1)]
_CHOICES = [{"const": f"value{n}", "title": f"{word} Choice"} for n, word in enumerate(("First", "Second", "Third"), 1)]
_ENUMS = {
    "untitledSingle": {"type": "string", "enum": _OPTIONS},
    "titledSingle": {"type": "string", "oneOf": _TITLED},
    "legacyEnum": {
        "type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": _CHOICES}},
}  # fmt: skip
questioning("test_sampling", _text_argument("prompt"), lambda given: ask(given["prompt"]), "LLM response")
questioning(
    "test_elicitation",
    _text_argument("message"),
    lambda given: elicit(given["message"], _USER, ["username", "email"]),
    "User response",
)
questioning(
    "test_elicitation_sep1034_defaults", OBJECT, lambda _: elicit("Defaults", _DEFAULTS), "Elicitation completed"
)
questioning("test_elicitation_sep1330_enums", OBJECT, lambda _: elicit("Enums", _ENUMS), "Elicitation completed")

NAME = elicit("What is your name?", {"name": {"type": "string"}}, ["name"])


def rounds(name: str, *steps: Mapping[str, Any], said: str, stateful: bool) -> None:
    """A tool that asks in one or more rounds; with a signed state, if it is stateful."""

    async def handler(
        _ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        step = 0
        if params.request_state is not None:
            number, _, signature = params.request_state.partition(".")
            if not hmac.compare_digest(_sign(number), signature):
                raise MCPError(code=types.INVALID_PARAMS, message="requestState was tampered with")
            step = int(number)
        given = answers(params)
        if given and all(_good(given.get(key)) for key in steps[step]):
            step += 1
        if step == len(steps):
            return text(f"{said} {given}")
        return required(steps[step], f"{step}.{_sign(str(step))}" if stateful else None)

    TOOLS[name] = (handler, OBJECT)


def _good(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("action", "accept") == "accept"


def _sign(number: str) -> str:
    return hmac.digest(STATE_KEY, number.encode(), hashlib.sha256).hex()


_P = "test_input_required_result_"
_OK = elicit("Please confirm", {"ok": {"type": "boolean"}}, ["ok"])
_COLOR = elicit("Step 2: What is your favorite color?", {"color": {"type": "string"}}, ["color"])
_STEP1 = elicit("Step 1: What is your name?", {"name": {"type": "string"}}, ["name"])
rounds(_P + "elicitation", {"user_name": NAME}, said="Hello", stateful=False)
rounds(_P + "sampling", {"capital_question": ask("What is the capital of France?")}, said="Answer", stateful=False)
rounds(_P + "list_roots", {"client_roots": ROOTS}, said="Roots", stateful=False)
rounds(_P + "request_state", {"confirm": _OK}, said="state-ok", stateful=True)
rounds(_P + "tampered_state", {"confirm": _OK}, said="state-ok", stateful=True)
rounds(
    _P + "multiple_inputs",
    {"user_name": NAME, "greeting": ask("Generate a greeting"), "client_roots": ROOTS},
    said="Got",
    stateful=True,
)
rounds(_P + "multi_round", {"step1": _STEP1}, {"step2": _COLOR}, said="Done", stateful=True)


@tool(_P + "capabilities")
async def capabilities_tool(ctx: Context, _params: types.CallToolRequestParams) -> types.InputRequiredResult:
    declared: Any = (ctx.meta or {}).get("io.modelcontextprotocol/clientCapabilities") or {}
    asked = {"a": ask("Hello"), "b": NAME, "c": ROOTS}
    return required({key: each for key, each in asked.items() if _NEEDS[each["method"]] in declared})


@tool("test_missing_capability")
async def missing_tool(ctx: Context, _params: types.CallToolRequestParams) -> types.CallToolResult:
    declared: Any = (ctx.meta or {}).get("io.modelcontextprotocol/clientCapabilities") or {}
    if "sampling" not in declared:
        data: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(code=-32021, message="sampling is required", data=data)
    return text("ok")


async def list_tools(_ctx: Context, _params: Any) -> types.ListToolsResult:
    tools = [types.Tool(name=name, description=name, input_schema=schema) for name, (_, schema) in TOOLS.items()]
    return types.ListToolsResult(tools=tools)


async def call_tool(
    ctx: Context, params: types.CallToolRequestParams
) -> types.CallToolResult | types.InputRequiredResult:
    if params.name not in TOOLS:
        raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown tool: {params.name}")
    return await TOOLS[params.name][0](ctx, params)


async def set_level(_ctx: Context, _params: Any) -> types.EmptyResult:
    return types.EmptyResult()


def main(port_file: Path) -> None:
    server = Server("everything", on_list_tools=list_tools, on_call_tool=call_tool, on_set_logging_level=set_level)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    port_file.with_suffix(".partial").write_text(str(listener.getsockname()[1]))
    port_file.with_suffix(".partial").rename(port_file)
    config = uvicorn.Config(server.streamable_http_app(), log_level="error")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
