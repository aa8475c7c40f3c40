"""A model's own chat template (Jinja2), rendered the way transformers and the inference servers render it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Templates that print today's date would make two nodes, or a resumed run, see different data.
_TODAY = datetime(2026, 1, 1, tzinfo=UTC)


class TemplateError(ValueError):
    """The template cannot be compiled, or refuses this conversation."""


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}` marks what the model wrote; here it only has to be let through."""

    tags = {"generation"}  # noqa: RUF012 - Jinja2 declares it as a mutable class attribute

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Renders messages to text."""

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        """`special_tokens` are the names templates use (`bos_token`, `eos_token`, …). Raises `TemplateError`."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _TODAY.strftime
        self._special_tokens = dict(special_tokens or {})
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template does not compile: {error}") from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = False,
        **variables: object,
    ) -> str:
        """The conversation's text; with `add_generation_prompt` up to where the model would start to write."""
        try:
            return self._template.render(
                messages=messages,
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
                **variables,
            )
        except (jinja2.TemplateError, TypeError, AttributeError, KeyError) as error:
            raise TemplateError(f"the chat template refuses this conversation: {error}") from error


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    # Jinja2's own filter escapes for HTML; models never saw that.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
