"""From a configuration to each process of a run but the trainer's. No torch."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from pinnace.chat import ChatTokenizer
from pinnace.outcome import InvalidData
from pinnace.storage import Storage

from .capture.capture import Capture
from .capture.session import Sessions
from .config import RunConfig, ServerConfig
from .control.coordinator import Coordinator
from .control.exposition import Exposition
from .control.front import Front
from .control.ledger import Ledger
from .control.mirror import Mirror, MirrorClient
from .control.wire import AsyncLine, run_key
from .fleet import Connect, Fleet
from .reference.client import ReferenceServer
from .rollout import RolloutEngine
from .sampler.agents import Play, agent_of, imported
from .sampler.sampler import Sampler
from .server.probe import Needs, connect
from .store import TrajectoryStore
from .weights import weights_at


def serve(app: web.Application | Awaitable[web.Application], url: str) -> None:
    """At the port of `url`, on every interface unless the host is a loopback's, until SIGTERM."""
    where = urlsplit(url)
    host = where.hostname if where.hostname in {"127.0.0.1", "localhost", "::1"} else None
    web.run_app(app, host=host, port=where.port or 80, print=None, access_log=None, shutdown_timeout=1)


def check(config: RunConfig) -> None:
    """Whether samplers could start. A reward function may have a `check` of all tasks, which raises ValueError.

    Raises `InvalidSpec`, `InvalidData`.
    """
    agent_of(config)
    reward = imported(config.reward, "reward") if config.reward else None
    try:
        getattr(reward, "check", lambda _: None)(config.read_tasks())
    except ValueError as error:
        raise InvalidData(f"tasks: {error}") from None


def coordinate(config: RunConfig) -> None:
    key = run_key()
    config.folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(config, TrajectoryStore(config.folder / "trajectories.db"), config.read_tasks())
    serve(Coordinator(ledger, key=key).app(), config.coordinator)


def front(config: RunConfig) -> None:
    key = run_key()

    async def app() -> web.Application:
        tokenizer = ChatTokenizer.from_directory(config.model)
        needs = Needs(tokenizer=tokenizer, context_tokens=config.context_tokens)
        fleet = Fleet(
            {one.url: connector(one, needs) for one in config.servers},
            weights_at(config.storage, config.folder),
            probe=config.probe,
            temperature=config.temperature,
            mirrors={one.url: MirrorClient(one.mirror, key=key) for one in config.servers if one.mirror},
        )
        sampling = config.sampling
        capture = Capture(
            engine=fleet,
            tokenizer=tokenizer,
            sessions=Sessions({"train": sampling, "validation": sampling}),
            context_tokens=config.context_tokens,
        )
        return Front(capture, fleet, key=key, session_seconds=2 * config.agent.seconds + 60).app()

    serve(app(), config.proxy)


def connector(server: ServerConfig, needs: Needs) -> Connect:
    """Makes the adapter of the server's kind, once the server answers."""

    async def reference() -> RolloutEngine:
        return ReferenceServer(server.url)

    async def real() -> RolloutEngine:
        # A server that a killed proxy left paused goes on: the fleet loads weights next.
        return await connect(server.url, needs, resume=True)

    return reference if server.kind == "reference" else real


def mirror(url: str, folder: Path) -> None:
    serve(Mirror(Storage.from_env(), folder, key=run_key()).app(), url)


def sample(config: RunConfig, *, name: str, slots: int, metrics_port: int | None) -> None:
    """Plays until the run is finished, or SIGTERM."""
    play = agent_of(config)
    reward = imported(config.reward, "reward") if config.reward else None
    asyncio.run(_sample(config, play, reward, name or f"{socket.gethostname()}-{os.getpid()}", slots, metrics_port))


async def _sample(
    config: RunConfig, play: Play, reward: Callable[..., Any] | None, name: str, slots: int, metrics_port: int | None
) -> None:
    key = run_key()
    coordinator = AsyncLine(config.coordinator, key=key, patience=config.patience_seconds)
    proxy = AsyncLine(config.proxy, key=key, patience=config.patience_seconds)
    sampler = Sampler(config, name=name, coordinator=coordinator, proxy=proxy, play=play, reward=reward, slots=slots)
    runner = await _expose(Exposition("sampler", sampler.values), metrics_port)
    playing = asyncio.create_task(sampler.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, playing.cancel)
    try:
        await playing
    except asyncio.CancelledError:
        pass  # asked to stop: what was under way is played again by another
    finally:
        await runner.cleanup()
        await coordinator.aclose()
        await proxy.aclose()


async def _expose(exposition: Exposition, port: int | None) -> web.AppRunner:
    """`/metrics` of a process that serves nothing else."""

    async def metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(body=exposition.text(), content_type="text/plain")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    if port is not None:
        await web.TCPSite(runner, port=port).start()
    return runner
