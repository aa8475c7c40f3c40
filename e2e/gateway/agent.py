"""Session agents (docs/toolsandbox-contract.md §5), many in one process: `python agent.py PORT_FILE COUNT KEY`.

They keep the state machine, the key, 409 and their own clock; their tools are files of a workspace and the lease's
environment. No code runs in them.
"""

from __future__ import annotations

import asyncio
import datetime
import io
import json
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from aiohttp import web


def tool(name: str, *arguments: str) -> dict[str, Any]:
    properties = {each: {"type": "string"} for each in arguments}
    return {"name": name, "inputSchema": {"type": "object", "properties": properties, "required": list(arguments)}}


TOOLS = [tool("write_file", "name", "text"), tool("read_file", "name"), tool("get_env", "name")]


class Agent:
    """One pod's agent."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.state = "free"
        self.lease: dict[str, Any] = {}
        self.files: dict[str, str] = {}
        self.used = time.time()
        self.arming = 0.0

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.guard])
        app.router.add_get("/lease", self.show)
        app.router.add_post("/lease", self.arm)
        app.router.add_delete("/lease", self.release)
        app.router.add_post("/lease/reset", self.reset)
        app.router.add_post("/lease/renew", self.renew)
        app.router.add_get("/lease/workspace.tar", self.workspace)
        app.router.add_post("/mcp", self.mcp)
        app.router.add_get("/healthz", self.healthz)
        return app

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path != "/healthz" and request.headers.get("X-Pinnace-Key") != self.key:
            return web.json_response({"message": "wrong key"}, status=401)
        self.reap()
        response: web.StreamResponse = await handler(request)
        return response

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    def reap(self) -> None:
        if self.state != "armed":
            return
        ends = datetime.datetime.fromisoformat(self.lease["expiresAt"]).timestamp()
        if time.time() >= ends or time.time() - self.used >= self.lease["idleSeconds"]:
            self.clear("free")

    def clear(self, state: str) -> None:
        self.state, self.lease, self.files = state, {}, {}

    async def show(self, _request: web.Request) -> web.Response:
        known = {name: self.lease[name] for name in ("id", "tokenSha256", "expiresAt", "labels") if name in self.lease}
        used = datetime.datetime.fromtimestamp(self.used, datetime.UTC).isoformat()
        idle = {"idleSeconds": self.lease["idleSeconds"], "lastUsed": used} if self.lease else {}
        return web.json_response({"state": self.state, **known, **idle})

    async def arm(self, request: web.Request) -> web.Response:
        if self.state != "free":
            return web.json_response({"message": f"it is {self.state}"}, status=409)
        self.state = "starting"
        self.lease = await request.json()
        await asyncio.sleep(self.arming)
        self.state, self.used = "armed", time.time()
        return web.json_response({"state": "armed"})

    def mine(self, request: web.Request) -> None:
        if self.state != "armed" or request.headers.get("X-Pinnace-Session") != self.lease.get("id"):
            raise web.HTTPConflict(text=json.dumps({"message": "no such lease"}), content_type="application/json")

    async def release(self, request: web.Request) -> web.Response:
        self.mine(request)
        recycle = request.query.get("recycle", "Restart")
        files = self.files
        self.clear("spent" if recycle == "Delete" else "free")
        if recycle == "Noop":
            self.files = files
        return web.json_response({"state": self.state})

    async def reset(self, request: web.Request) -> web.Response:
        self.mine(request)
        self.files = {}
        return web.json_response({"state": self.state})

    async def renew(self, request: web.Request) -> web.Response:
        self.mine(request)
        self.lease |= await request.json()
        self.used = time.time()
        return web.json_response({"state": self.state})

    async def workspace(self, request: web.Request) -> web.Response:
        self.mine(request)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, text in self.files.items():
                info = tarfile.TarInfo(name)
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
        return web.Response(body=buffer.getvalue(), content_type="application/x-tar")

    async def mcp(self, request: web.Request) -> web.Response:
        message = await request.json()
        if message["method"] == "tools/list":
            result: dict[str, Any] = {"tools": TOOLS, "ttlMs": 0, "cacheScope": "public"}
        else:
            self.mine(request)
            self.used = time.time()
            result = self.run(message["params"]["name"], message["params"].get("arguments") or {})
        return web.json_response(
            {"jsonrpc": "2.0", "id": message["id"], "result": {"resultType": "complete", **result}}
        )

    def run(self, name: str, given: dict[str, str]) -> dict[str, Any]:
        if name == "write_file":
            self.files[given["name"]] = given["text"]
            said: str | None = "written"
        else:
            said = (self.files if name == "read_file" else self.lease.get("env", {})).get(given["name"])
        return {"content": [{"type": "text", "text": said or "there is none"}], "isError": said is None}


async def main(port_file: Path, count: int, key: str) -> None:
    ports = []
    for _ in range(count):
        runner = web.AppRunner(Agent(key).app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(str(runner.addresses[0][1]))
    port_file.with_suffix(".partial").write_text("\n".join(ports))
    port_file.with_suffix(".partial").rename(port_file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
