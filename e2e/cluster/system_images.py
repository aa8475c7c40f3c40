"""Images of the cluster's own pods, made from programs in the cache."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import archive
from e2e.cluster.archive import Entry
from e2e.cluster.paths import BIN, SYSTEM_IMAGES

PAUSE = r"""
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
/* Holds a pod's namespaces and reaps what the pod's other processes leave. */
static void end(int signal) { _exit(0); }
static void reap(int signal) { while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
  sigaction(SIGINT, &(struct sigaction){.sa_handler = end}, 0);
  sigaction(SIGTERM, &(struct sigaction){.sa_handler = end}, 0);
  sigaction(SIGCHLD, &(struct sigaction){.sa_handler = reap, .sa_flags = SA_NOCLDSTOP}, 0);
  for (;;) pause();
}
"""
WEED = Path(sys.executable).parent / "weed"
BUSYBOX = Path("/bin/busybox")


@dataclass(frozen=True)
class SystemImage:
    """An image archive on disk. The tag is made of what went in, so that a changed program rolls its Deployment."""

    reference: str
    archive: Path


def _image(
    name: str, sources: Sequence[Path], entries: Sequence[Entry], entrypoint: Sequence[str], tag: str = ""
) -> SystemImage:
    """Write the archive unless one of the same sources (size and time) and entries is there."""
    SYSTEM_IMAGES.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(
        repr([name, tag, entrypoint, entries, *(_identity(path) for path in sources)]).encode()
    ).hexdigest()[:12]
    reference = f"localhost/{name}:{tag or key}"
    target = SYSTEM_IMAGES / f"{name}-{key}.tar"
    if not target.exists():
        for old in SYSTEM_IMAGES.glob(f"{name}-*.tar"):
            old.unlink()
        archive.write(target, reference, entries, entrypoint)
    return SystemImage(reference, target)


def _identity(path: Path) -> tuple[str, int, int]:
    status = path.resolve().stat()
    return str(path), status.st_size, status.st_mtime_ns


def pause() -> SystemImage:
    SYSTEM_IMAGES.mkdir(parents=True, exist_ok=True)
    program = SYSTEM_IMAGES / f"pause.{hashlib.sha256((PAUSE + platform.machine()).encode()).hexdigest()[:12]}"
    if not program.exists():
        new = program.with_suffix(".new")
        subprocess.run(["gcc", "-Os", "-static", "-s", "-x", "c", "-", "-o", new], input=PAUSE, text=True, check=True)
        new.replace(program)
    # containerd pins it by this name, so its tag is fixed.
    return _image("pause", [program], [Entry("/pause", source=program)], ["/pause"], tag="1")


def coredns() -> SystemImage:
    return _image("coredns", [BIN / "coredns"], [Entry("/coredns", source=BIN / "coredns")], ["/coredns"])


def jobset() -> SystemImage:
    entries = [Entry("/manager", source=BIN / "jobset-manager"), Entry("/tmp")]
    return _image("jobset", [BIN / "jobset-manager"], entries, ["/manager"])


def seaweedfs() -> SystemImage:
    return _image("seaweedfs", [WEED], [Entry("/weed", source=WEED), Entry("/tmp")], ["/weed"])


def busybox() -> SystemImage:
    """For people and tests that want a shell, `nslookup` and `wget` in a pod."""
    names = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    links = [Entry(f"/bin/{name}", link="busybox") for name in names if name != "busybox"]
    users = [
        Entry("/etc/passwd", data=b"root:x:0:0:root:/:/bin/sh\n", mode=0o644),
        Entry("/etc/group", data=b"root:x:0:\n", mode=0o644),
    ]
    return _image(
        "busybox", [BUSYBOX], [Entry("/bin/busybox", source=BUSYBOX), *links, Entry("/tmp"), *users], [], tag="1"
    )
