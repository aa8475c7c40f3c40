"""From a conversation to an answer: prompt, sampling, the trajectory's history. No HTTP here."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from pinnace.chat import ChatTokenizer, Conversation, Message, ParsedTurn, TemplateError, parse_turn
from pinnace.rl.rollout import EngineUnavailable, Generation, SamplingParameters, TokenSource
from pinnace.rl.types import Fault, InvalidTurn

from .merge import Call
from .prompt import Exchange, PromptWriter
from .refusal import Refused
from .session import Answer, Session, Sessions

Parser = Callable[[str], ParsedTurn]


class Gate:
    """Closed while weights are updated: requests wait, and so hold their sockets open."""

    def __init__(self, *, hold_seconds: float) -> None:
        self._hold_seconds = hold_seconds
        self._open = asyncio.Event()
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        """Raises `Refused` (429, to be tried again) for who has waited as long as sockets can be held."""
        try:
            async with asyncio.timeout(self._hold_seconds):
                await self._open.wait()
        except TimeoutError:
            raise Refused(429, "the weights are being updated: ask again", code="weights_updating") from None


class Capture:
    """Answers conversations of sessions and keeps every token. `counts` is for the metrics."""

    def __init__(
        self,
        *,
        engine: TokenSource,
        tokenizer: ChatTokenizer,
        sessions: Sessions,
        context_tokens: int,
        hold_seconds: float = 300.0,
        parser: Parser | None = None,
    ) -> None:
        """`context_tokens` is the most that prompt and answer may have; `parser` reads another format than Qwen's."""
        self.sessions = sessions
        self.gate = Gate(hold_seconds=hold_seconds)
        self.counts: Counter[str] = Counter()
        self.in_flight = 0
        self._engine = engine
        self._tokenizer = tokenizer
        self._writer = PromptWriter(tokenizer)
        self._context_tokens = context_tokens
        self._parse = parser or (lambda text: parse_turn(text, stop_tokens=tokenizer.stop_tokens))

    async def answer(
        self,
        session: Session,
        conversation: Conversation,
        *,
        max_tokens: int | None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Answer:
        """Samples one turn and joins it to the session's history. Raises `Refused`.

        `wanted` says whether the client still listens. An answer that nobody heard had no part in the outcome, so it
        is not kept: the client will ask again, and would be credited twice.
        """
        try:
            text, ids = self._writer.write(conversation, session.exchanges)
        except TemplateError as error:
            raise Refused(400, str(error), code="invalid_messages", parameter="messages") from error
        room = self._context_tokens - len(ids)
        if room <= 0:
            session.context_exhausted = True
            raise Refused(
                400,
                f"the prompt has {len(ids)} tokens, the context {self._context_tokens}: fold the history or stop",
                code="context_length_exceeded",
                parameter="messages",
            )
        forced = self.sessions.sampling[session.mode]
        limit = min(room, forced.max_tokens, max_tokens or room)
        await self.gate.passed()
        generation = await self._generate(
            ids, replace(forced, max_tokens=limit, stop_ids=forced.stop_ids or self._tokenizer.stop_ids)
        )
        parsed = self._parse(self._tokenizer.decode(generation.ids))
        fault = Fault.FORMAT if parsed.problems and generation.finish == "stop" else None
        if not wanted():
            self.counts["abandoned"] += 1
            raise Refused(499, "the client has gone", code="client_gone")
        self._keep(session, ids, generation, fault)
        message = _with_ids(parsed.message)
        session.exchanges.append(
            Exchange(replace(conversation, messages=(*conversation.messages, message)), text, ids + generation.ids)
        )
        return Answer(
            id=secrets.token_hex(12),
            message=message,
            finish="tool_calls" if message.tool_calls and generation.finish == "stop" else generation.finish,
            prompt_tokens=len(ids),
            output_tokens=len(generation.ids),
        )

    async def _generate(self, ids: tuple[int, ...], parameters: SamplingParameters) -> Generation:
        self.in_flight += 1
        try:
            return await self._engine.generate(ids, parameters)
        except EngineUnavailable as error:
            self.counts["engine_unavailable"] += 1
            raise Refused(503, f"no rollout server answered ({error}): ask again", code="engine_unavailable") from error
        finally:
            self.in_flight -= 1

    def _keep(self, session: Session, ids: tuple[int, ...], generation: Generation, fault: Fault | None) -> None:
        call = Call(
            prompt_ids=ids,
            output_ids=generation.ids,
            behaviour_logprobs=generation.behaviour_logprobs,
            policy_versions=generation.policy_versions,
            fault=fault,
        )
        try:
            self.counts[f"merge_{session.history.add(call)}"] += 1
        except InvalidTurn as error:
            self.counts["engine_faults"] += 1
            raise Refused(
                502, f"a rollout server gave an answer that can't be true ({error}): ask again", code="engine_fault"
            ) from error


def _with_ids(message: Message) -> Message:
    """Every call gets an id: clients answer to it."""
    return replace(
        message, tool_calls=tuple(replace(call, id=f"call_{secrets.token_hex(8)}") for call in message.tool_calls)
    )
