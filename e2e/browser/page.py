"""One page in a headless Chromium: what it loads, what it logs, what it shows."""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from e2e.browser.install import environment, installed

_LISTENS = re.compile(rb"DevTools listening on (ws://\S+)")
# In a container of tests there is no user namespace for Chromium's own sandbox; what it opens is ours.
_OPTIONS = ("--headless=shell", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--remote-debugging-port=0")  # fmt: skip


@dataclass
class Page:
    """`requests`: addresses that it asked for; `complaints`: its errors, exceptions and violations of its policy."""

    socket: aiohttp.ClientWebSocketResponse
    session: str = ""
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    loaded: bool = False
    _number: int = 0

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol and its result. Raises `RuntimeError`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        await self.socket.send_json({**message, "sessionId": self.session} if self.session else message)
        while True:
            answer = await self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = await asyncio.wait_for(self.socket.receive_json(), 60)
        match message.get("method"), message.get("params", {}):
            case "Network.requestWillBeSent", told:
                self.requests.append(told["request"]["url"])
            case "Runtime.exceptionThrown", told:
                self.complaints.append(str(told["exceptionDetails"]["text"]))
            case "Log.entryAdded", told if told["entry"]["level"] == "error":
                self.complaints.append(str(told["entry"]["text"]))
            case "Page.loadEventFired", _:
                self.loaded = True
        return message

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page. Raises `RuntimeError` if it throws."""
        found = await self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    async def picture(self, path: Path, *, width: int, height: int) -> None:
        """A PNG of the page as a window of this size shows it."""
        await self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                           mobile=False)  # fmt: skip
        shot = await self.command("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Page]:
    """A page that has loaded; the browser has its own profile and ends with the block."""
    folder, profile = installed(), tempfile.mkdtemp(prefix="pinnace-chromium-")
    process = await asyncio.create_subprocess_exec(
        folder / "chromium", *_OPTIONS, f"--user-data-dir={profile}", "about:blank",
        env=environment(folder), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(120):
            assert process.stderr is not None
            while not (found := _LISTENS.search(line := await process.stderr.readline())):
                if not line:
                    raise RuntimeError("Chromium ended before it listened")
        async with aiohttp.ClientSession() as http, http.ws_connect(found[1].decode(), max_msg_size=0) as socket:
            page = Page(socket)
            target = await page.command("Target.createTarget", url="about:blank")
            page.session = (await page.command("Target.attachToTarget", **target, flatten=True))["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                await page.command(f"{domain}.enable")
            await page.command("Page.navigate", url=address)
            while not page.loaded:
                await page._next()
            yield page
    finally:
        process.kill()
        await process.wait()
        shutil.rmtree(profile, ignore_errors=True)
