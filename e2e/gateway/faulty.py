"""A replica that is broken in a way that real ones are: it answers garbage, cuts the line, or says that it is full."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["garbage", "html", "cut", "full", "error"]
_ANSWERS = {
    "garbage": (200, "application/json", b'{"jsonrpc":"2.0","id":1,"res'),
    "html": (200, "text/html", b"<html>It works!</html>"),
    "full": (503, "text/plain", b"over the queue"),
    "error": (500, "text/plain", b"Internal Server Error"),
}


class FaultyReplica:
    """`posts` counts the requests that came."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.posts = 0
        self.url = ""


@contextmanager
def faulty(fault: Fault) -> Iterator[FaultyReplica]:
    """A running one; it answers health probes as if nothing were wrong."""
    replica = FaultyReplica(fault)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200, "text/plain", b"ok")

        def do_POST(self) -> None:
            replica.posts += 1
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if replica.fault == "cut":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._answer(*_ANSWERS[replica.fault])

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if status == 503:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    replica.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield replica
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
