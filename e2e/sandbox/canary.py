"""A service inside of a pod's network namespace that untrusted code must not reach; it counts who does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.sandbox.pod import Pod

ADDRESSES = ("169.254.169.254", "10.96.0.1")
"""Cloud metadata, and the usual first address of a cluster's service range; both on `lo` of the pod."""
PORTS = (80, 443, 9999)

_SERVER = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
for port in map(int, sys.argv[2:]):
    server = socket.create_server(("0.0.0.0", port))
    selector.register(server, selectors.EVENT_READ)
print("up", flush=True)
while True:
    for key, _ in selector.select():
        connection, _ = key.fileobj.accept()
        with open(sys.argv[1], "a") as log:
            log.write("%s:%d\\n" % connection.getsockname())
        connection.close()
"""


@dataclass(frozen=True)
class Canary:
    """What it saw."""

    log: Path

    @property
    def reached(self) -> list[str]:
        """Address and port of each connection."""
        return self.log.read_text().split()


@contextmanager
def canary(pod: Pod) -> Iterator[Canary]:
    """Serves until the end of the block."""
    log = pod.folder / "canary.log"
    log.touch()
    inside = ["nsenter", f"--net=/proc/{pod.holder}/ns/net"]
    for address in ADDRESSES:
        subprocess.run([*inside, "ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    command = [*inside, sys.executable, "-c", _SERVER, str(log), *map(str, PORTS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield Canary(log)
    finally:
        process.kill()
        process.wait()
