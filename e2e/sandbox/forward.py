"""A port of this machine that leads to the agent inside a pod's network namespace, for gateways outside of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from e2e.sandbox.pod import Pod, connect_inside


@contextmanager
def forwarded(pod: Pod, port: int = 8081) -> Iterator[str]:
    """The base URL, as long as the block runs."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                outer, _ = listener.accept()
            except OSError:
                return  # closed
            try:
                inner = connect_inside(pod.namespace, port)
            except OSError:
                outer.close()
                continue
            for one, other in ((outer, inner), (inner, outer)):
                threading.Thread(target=_copy, args=(one, other), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
