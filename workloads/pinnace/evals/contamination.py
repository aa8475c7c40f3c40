"""Keeps the benchmark's own pages out of the agent's sight, and notices when its canary turns up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from pinnace.agent import ToolReply, Tools
from pinnace.agent.tools import DENIED, Reply

# Pages that collect agents' benchmark questions with their answers, whatever the benchmark.
EVERYWHERE = (
    "huggingface.co/datasets",
    "huggingface.co/spaces",
    "hf-mirror.com/datasets",
    "hf-mirror.com/spaces",
    "datasets-server.huggingface.co",
    "github.com/openai/simple-evals",
    "github.com/ukgovernmentbeis/inspect_evals",
)
_ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?((?:[a-z0-9-]+\.)+[a-z]{2,}(?:/[^\s\"'<>)\]]*)?)", re.IGNORECASE)
_SHORTEST_CANARY = 12
_REMOVED = "[A result was left out: its address is blocked during this evaluation.]"


class Guard:
    """What is blocked: addresses (host and beginning of the path) and texts that no page should have."""

    def __init__(self, blocked: Sequence[str] = (), canaries: Sequence[str | None] = ()) -> None:
        self._blocked = tuple(_plain(address) for address in (*EVERYWHERE, *blocked))
        self._canaries = tuple({canary for canary in canaries if canary and len(canary) >= _SHORTEST_CANARY})

    def address(self, text: str) -> str | None:
        """The first blocked address in a text, also if it is percent-encoded; None if there is none."""
        for shown in {text, unquote(text), unquote(unquote(text))}:
            for match in _ADDRESS.finditer(shown):
                found = _plain(match.group(1))
                if any(found == each or found.startswith((f"{each}/", f"{each}?")) for each in self._blocked):
                    return found
        return None

    def canary(self, text: str) -> bool:
        """Whether a canary is in a text."""
        return any(canary in text for canary in self._canaries)

    def cleaned(self, text: str) -> tuple[str, int]:
        """A result without the paragraphs that name blocked addresses, and how many those were."""
        if self.address(text) is None:
            return text, 0
        parts = re.split(r"(\n\s*\n)", text)
        removed = 0
        for index, part in enumerate(parts):
            if self.address(part) is not None:
                parts[index] = _REMOVED
                removed += 1
        return "".join(parts), removed


class GuardedTools:
    """`Tools` behind a `Guard`. What it did is in the reply's `meta`: `blocked`, `removed`, `canary`."""

    def __init__(self, tools: Tools, guard: Guard) -> None:
        self._tools = tools
        self._guard = guard

    async def schemas(self) -> Sequence[Mapping[str, Any]]:
        return await self._tools.schemas()

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolReply:
        asked = self._guard.address("\n".join(_texts(arguments)))
        if asked is not None:
            text = f"{asked} is blocked during this evaluation, because it has the benchmark's answers. Look elsewhere."
            return Reply(DENIED, text, {"blocked": asked})
        reply = await self._tools.call(name, arguments)
        if self._guard.canary(reply.text):
            text = "The result was left out: it has the benchmark's canary, so it is a copy of the benchmark."
            return Reply(DENIED, text, {**reply.meta, "canary": True})
        text, removed = self._guard.cleaned(reply.text)
        return Reply(str(reply.outcome), text, {**reply.meta, "removed": removed}) if removed else reply


def _plain(address: str) -> str:
    address = address.casefold().removeprefix("https://").removeprefix("http://").removeprefix("www.")
    host, slash, path = address.partition("/")
    return host.rstrip(".") + slash + re.sub(r"/+", "/", path).lstrip("/").rstrip("/.,;:)")


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, Sequence):
        return [text for each in value for text in _texts(each)]
    return []
