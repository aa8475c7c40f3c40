"""Throughput, CPU and memory of `pinnace.storage` against plain boto3, in one run on one SeaweedFS.

Ours also computes the SHA-256 of every byte, has the server check every request, and writes a manifest.
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pinnace.storage import S3Settings, Storage
from pinnace.storage.insistence import Insistence
from pinnace.storage.transfer import tree
from pinnace.storage.uri import S3Uri

from e2e.s3 import ACCESS_KEY, SECRET_KEY, s3_server
from e2e.stored import raw_client

MIB = 1 << 20
SIZE = int(os.environ.get("PINNACE_BENCH_MIB", "512"))
SMALL = int(os.environ.get("PINNACE_BENCH_FILES", "1000"))
ROUNDS = 3


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class _PeakMemory:
    """Highest resident memory above that at the start, in MiB, sampled every 5 ms."""

    def __enter__(self) -> Self:
        self._base = self._now()
        self.peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, self._now() - self._base)

    @staticmethod
    def _now() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def _measure(name: str, work: Callable[[], object]) -> tuple[float, float]:
    with _PeakMemory() as memory:
        cpu, began = _cpu(), time.perf_counter()
        work()
        seconds, cpu = time.perf_counter() - began, _cpu() - cpu
    print(f"  {name:24} {seconds:7.2f} s   cpu {cpu:5.2f} s   memory +{memory.peak:4.0f} MiB", flush=True)
    return seconds, cpu


def _compare(title: str, mib: float, ours: Callable[[], object], peer: Callable[[], object]) -> None:
    """Alternates, so that a slow moment of the machine hits both; prints medians and their ratio."""
    print(title)
    times = [(_measure("pinnace", ours), _measure("boto3", peer)) for _ in range(ROUNDS)]
    mine, theirs = (statistics.median(pair[side][0] for pair in times) for side in (0, 1))
    cpu = [statistics.median(pair[side][1] for pair in times) for side in (0, 1)]
    rate = f"{mib / mine:.0f} against {mib / theirs:.0f} MiB/s, " if mib else ""
    print(f"  => {rate}throughput ratio {theirs / mine:.2f}, cpu ratio {cpu[0] / cpu[1]:.2f}", flush=True)


def main() -> None:
    with s3_server() as server, tempfile.TemporaryDirectory(prefix="pinnace-bench-") as scratch:
        client = raw_client(server.endpoint)
        client.create_bucket(Bucket="bench")
        storage = Storage(S3Settings("bench", endpoint=server.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY))
        root, base, keep_on = Path(scratch), S3Uri("bench"), Insistence()
        big, small = root / "big", root / "small"
        big.mkdir()
        small.mkdir()
        with (big / "model.safetensors").open("wb") as file:
            for _ in range(SIZE):
                file.write(os.urandom(MIB))
        for number in range(SMALL):
            (small / f"{number:05d}").write_bytes(os.urandom(1000))
        source = str(big / "model.safetensors")

        _compare(
            f"upload of one file, {SIZE} MiB (plain boto3: upload_file, no SHA-256)",
            SIZE,
            lambda: storage.transfer.upload(tree(big), base / "ours", insist=keep_on),
            lambda: client.upload_file(source, "bench", "plain/model.safetensors"),
        )
        entries = storage.transfer.upload(tree(big), base / "ours", insist=keep_on)
        rounds = iter(range(100))
        _compare(
            f"download of one file, {SIZE} MiB (plain boto3: download_file, nothing verified)",
            SIZE,
            lambda: storage.transfer.download(entries, base / "ours", root / f"ours{next(rounds)}"),
            lambda: client.download_file("bench", "plain/model.safetensors", str(root / f"plain{next(rounds)}")),
        )

        def one_by_one() -> None:
            for file in small.iterdir():
                client.upload_file(str(file), "bench", f"small/{file.name}")

        _compare(
            f"upload of {SMALL} files of 1 kB (plain boto3: upload_file in a loop)",
            0,
            lambda: storage.transfer.upload(tree(small), base / "many", insist=keep_on),
            one_by_one,
        )


if __name__ == "__main__":
    main()
