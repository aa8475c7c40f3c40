"""A stdio MCP server of revision 2025-06-18 that does on request what no server should. No SDK: it starts at once.

`python faulty.py [--die-at-start TEXT] [--start-when FILE]`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

NAMES = ["echo", "wait", "hang", "die", "garbage", "huge", "progress", "environment", "grow", "orphan", "pid", "ask"]
lock = threading.Lock()
cancelled: set[Any] = set()
kept: list[bytearray] = []


def send(message: dict[str, Any]) -> None:
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def reply(number: Any, text: str, **more: Any) -> None:
    send({"id": number, "result": {"content": [{"type": "text", "text": text}], **more}})


def until(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


def call(  # noqa: PLR0912 - one branch a misdeed
    number: Any, name: str, arguments: dict[str, Any], token: Any
) -> None:
    match name:
        case "echo":
            reply(number, arguments["text"])
        case "wait":  # until a file exists; says in another that it has begun, and in a third that it was cancelled
            Path(arguments["begun"]).write_text(str(os.getpid()))
            while not Path(arguments["file"]).exists():
                if number in cancelled:
                    Path(arguments["file"] + ".cancelled").touch()
                    return
                time.sleep(0.01)
            reply(number, "done")
        case "die":
            print("about to die", file=sys.stderr, flush=True)
            os._exit(arguments.get("code", 7))
        case "garbage":
            with lock:
                sys.stdout.write(
                    'Loading model…\n{"half": \n\n[1, 2]\n"text"\n\x00\xff\n'
                    '{"jsonrpc": "2.0", "id": 999999, "result": {}}\n'
                )
                sys.stdout.flush()
            reply(number, "after garbage")
        case "huge":
            reply(number, "x" * arguments["bytes"])
        case "progress":
            for i in range(3):
                send(
                    {"method": "notifications/progress", "params": {"progressToken": token, "progress": i, "total": 3}}
                )
            if file := arguments.get("file"):
                until(file)
            reply(number, "counted")
        case "environment":
            reply(number, json.dumps(dict(os.environ)))
        case "grow":
            kept.append(bytearray(os.urandom(1 << 20) * arguments["mib"]))
            reply(number, "grown")
        case "orphan":  # a grandchild that keeps our stdout open, then our own death
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            os._exit(3)
        case "pid":
            reply(number, str(os.getpid()))
        case "ask":
            send({"id": "mine", "method": "sampling/createMessage", "params": {}})
            send({"id": "ping", "method": "ping"})
            reply(number, "asked")
        case _:
            send({"id": number, "error": {"code": -32602, "message": f"no tool {name}"}})


def main() -> None:
    if "--die-at-start" in sys.argv:
        sys.exit(sys.argv[sys.argv.index("--die-at-start") + 1])
    if "--start-when" in sys.argv:
        until(sys.argv[sys.argv.index("--start-when") + 1])
    for line in sys.stdin:
        message = json.loads(line)
        params = message.get("params", {})
        match message.get("method"):
            case "initialize":
                info = {"name": "faulty", "version": "1"}
                send(
                    {
                        "id": message["id"],
                        "result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info},
                    }
                )
            case "tools/list":
                # Two pages, as the protocol allows.
                page = NAMES[6:] if params.get("cursor") else NAMES[:6]
                tools = [{"name": name, "inputSchema": {"type": "object"}} for name in page]
                send(
                    {
                        "id": message["id"],
                        "result": {"tools": tools, **({} if params.get("cursor") else {"nextCursor": "2"})},
                    }
                )
            case "ping":
                send({"id": message["id"], "result": {}})
            case "notifications/cancelled":
                cancelled.add(params["requestId"])
            case "tools/call" if params["name"] == "hang":
                time.sleep(3600)  # the whole process: it answers no ping either
            case "tools/call":
                token = params.get("_meta", {}).get("progressToken")
                arguments = (message["id"], params["name"], params.get("arguments", {}), token)
                threading.Thread(target=call, args=arguments, daemon=True).start()


if __name__ == "__main__":
    main()
