"""A host that can vanish as a pod that is deleted by force: its connections stay open, and nothing answers any more."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from e2e.gateway.lab import Process

_MOST_WAITING = 8  # connections that a backlog of 0 may still take


class Vanishing:
    """A relay before a real server; `close` it."""

    def __init__(self, server: Process) -> None:
        self._server = server
        self._gone = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def vanish(self) -> None:
        """From now on connections can't be made (their first packets are dropped), and open ones are silent."""
        self._gone.set()
        self._accepting.join()
        self._listener.listen(0)
        for _ in range(_MOST_WAITING):
            waiting = socket.socket()
            waiting.settimeout(0.2)
            self._sockets.append(waiting)
            try:
                waiting.connect(self._listener.getsockname())
            except TimeoutError:
                return
        raise RuntimeError("the backlog does not fill")

    def close(self) -> None:
        self._gone.set()
        self._accepting.join()
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        while not self._gone.is_set():
            with suppress(TimeoutError):
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._server.port))
                self._sockets += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=(one, other), daemon=True).start()

    def _relay(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                if self._gone.is_set():
                    return
                other.sendall(data)
            if not self._gone.is_set():
                other.shutdown(socket.SHUT_WR)
