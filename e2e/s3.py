"""A real S3 (SeaweedFS) on loopback, for tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e.apiserver import free_port

ACCESS_KEY, SECRET_KEY = "pinnace", "pinnace-secret"
WEED = Path(sys.executable).parent / "weed"


@dataclass
class S3Server:
    """One SeaweedFS process that serves S3 with one identity. State survives `stop` and `start`."""

    directory: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, timeout: float = 60) -> None:
        identity = {
            "name": "pinnace",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = self.directory / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        ports = [f"-{role}={free_port()}" for role in ("master.port", "volume.port", "filer.port")]
        # SeaweedFS derives gRPC ports as port + 10000, which may exceed 65535: give them explicitly.
        grpc = [
            f"-{role}={free_port()}"
            for role in ("master.port.grpc", "volume.port.grpc", "filer.port.grpc", "s3.port.grpc")
        ]
        with (self.directory / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(
                [WEED, "-logtostderr", "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                 "-s3", f"-s3.port={self.port}", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={config}",
                 "-volume.max=4096", "-master.volumeSizeLimitMB=64", *ports, *grpc],
                # Every bucket has volumes of its own, seven at a time unless told otherwise.
                env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd=self.directory,
            )  # fmt: skip
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{self.endpoint}/status", timeout=1).close()
                return
            except urllib.error.HTTPError:
                return  # any answer of its own means that it serves
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(
            "SeaweedFS did not start:\n" + (self.directory / "weed.log").read_text(errors="replace")[-3000:]
        )

    def stop(self, sig: int = signal.SIGKILL) -> None:
        if self.process:
            self.process.send_signal(sig)
            self.process.wait()
            self.process = None


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A running `S3Server` in a directory of its own, stopped and deleted at the end."""
    directory = Path(tempfile.mkdtemp(prefix="pinnace-s3-"))
    server = S3Server(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
