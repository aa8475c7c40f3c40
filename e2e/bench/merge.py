"""Merging from S3 to S3 against mergekit, in one run on this machine: `python -m e2e.bench.merge`.

Models with the layer shapes of Qwen3-4B, a base and two. Ours reads from and writes to the embedded S3. mergekit gets
local files (`local`), and needs a copy down and up besides (`with copies`: `pinnace.storage`'s own fetch and publish).
The floor is a copy from S3 to S3 of the same bytes, read and written as ours does. Peak memory is the kernel's.
`--sizes` also merges models of other sizes: memory must not grow with them; `--picture` draws it over time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pinnace.storage import S3Settings, Storage
from pinnace.storage.workers import Workers, gather

from e2e.bench.merge_memory import svg, watched
from e2e.merging import Shape, weights, write_model
from e2e.oracles.mergekit import environment
from e2e.s3 import ACCESS_KEY, SECRET_KEY, s3_server
from e2e.stored import raw_client

GOALS = {"linear": 3, "ties": 10, "dare_ties": 8, "della": 15}
FLOORS = {"linear": 1.5, "ties": 2.5}
_LAYER = 100_930_560  # numbers in a layer of Qwen3-4B
_PIECE = 16 << 20
_LIMIT = 1 << 30  # memoryLimit's default
LABELS = ("base", "m0", "m1")

MERGEKIT = """
import json, sys
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
run_merge(MergeConfiguration.model_validate(json.loads(sys.argv[1])), sys.argv[2], MergeOptions(quiet=True))
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""


@dataclass(frozen=True)
class Run:
    """Seconds by the clock, of processor time, and MiB at the peak (of the process and its children)."""

    wall: float
    cpu: float
    peak: float


def shape(billions: float) -> Shape:
    """Layers of Qwen3-4B and a vocabulary that together have about so many numbers."""
    layers = max(1, round(0.8 * billions * 1e9 / _LAYER))
    return Shape.qwen3_4b(layers=layers, vocabulary=max(1000, int((billions * 1e9 - layers * _LAYER) / 2560)))


def publish(storage: Storage, billions: float, scratch: Path) -> list[Path]:
    """A base and two models of that size, in local folders and in S3."""
    import torch

    folders = []
    for number, label in enumerate(LABELS):
        made = weights(shape(billions), seed=number, drift=0.002 if number else 0, dtype=torch.bfloat16)
        folders.append(write_model(scratch / label, made, shape(billions).config("bfloat16")))
        storage.publish(folders[-1], f"s3://bench/{label}")
    return folders


def config(method: str, places: list[str]) -> dict[str, Any]:
    """In mergekit's form."""
    own = {"weight": 0.5, "density": 0.5, "epsilon": 0.1}
    kept = {"della": ("weight", "density", "epsilon"), "linear": ("weight",)}.get(method, ("weight", "density"))
    return {
        "merge_method": method,
        "models": [{"model": place, "parameters": {key: own[key] for key in kept}} for place in places[1:]],
        "dtype": "bfloat16",
    } | ({} if method == "linear" else {"base_model": places[0]})


def timed(command: list[str], env: dict[str, str] | None = None) -> tuple[Run, str]:
    """Runs a program to its end and asks the kernel what it took."""
    with tempfile.TemporaryFile("w+") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise SystemExit(text[-3000:])
    last = text.splitlines()[-1]
    # Not ru_maxrss: it starts with what this process had when it forked.
    peak = int(last) / 1024 if last.isdecimal() else json.loads(last)["peak"] / 2**20
    return Run(wall, usage.ru_utime + usage.ru_stime, peak), text


def clock(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def copy(storage: Storage, sources: list[str], to: str) -> None:
    """Reads all bytes of the sources and writes as many as one of them has, hashed: what any merge must do."""
    store, digest = storage.store, hashlib.sha256()
    files = [[one for one in storage.list(source) if one.uri.key.endswith(".safetensors")] for source in sources]
    target = storage.settings.root / to / "model.safetensors"
    with Workers(8, "copy-read") as readers, Workers(8, "copy-write") as writers:
        upload = store.begin_parts(target)
        tags: list[Future[str]] = []
        for start in range(0, files[0][0].size, _PIECE):
            bodies = [bytearray(max(0, min(_PIECE, of[0].size - start))) for of in files]
            gather(
                [
                    readers.submit(store.read_into, of[0].uri, start, memoryview(body))
                    for of, body in zip(files, bodies, strict=True)
                ]
            )
            digest.update(bodies[0])
            tags.append(writers.submit(store.put_part, target, upload, len(tags) + 1, bytes(bodies[0])))
            if len(tags) > 6:
                tags[-6].result()
        store.finish_parts(target, upload, gather(tags))


def worker(settings: S3Settings, method: str, output: str, **more: Any) -> list[str]:
    """The command that merges from S3 to S3."""
    given = asdict(settings)
    given.pop("patience")
    places = [f"s3://bench/{name}" for name in LABELS]
    job = {"settings": given, "config": config(method, places), "output": f"s3://bench/out/{output}"} | more
    return [sys.executable, "-m", "e2e.merge_worker", json.dumps(job)]


def compare(storage: Storage, folders: list[Path], scratch: Path, methods: list[str]) -> None:
    """Prints the table."""
    names = [folder.name for folder in folders]
    down = clock(lambda: [storage.fetch(f"s3://bench/{name}", scratch / "down" / name) for name in names])
    size = sum(file.stat().st_size for file in folders[0].iterdir()) / 2**20
    print(f"{size / 2 * 2**20 / 1e9:.2f} B numbers, {size:.0f} MiB a model, base + 2, bf16", flush=True)
    print(f"copy down of three models (fetch, verified): {down:.1f} s", flush=True)
    for method in methods:
        models = names[1:] if method == "linear" else names
        floor = clock(partial(copy, storage, [f"s3://bench/{name}" for name in models], f"floor-{method}"))
        ours, _ = timed(worker(storage.settings, method, method))
        theirs, _ = timed(
            [
                sys.executable,
                "-c",
                MERGEKIT,
                json.dumps(config(method, [str(f) for f in folders])),
                str(scratch / method),
            ],
            environment(),
        )
        up = clock(partial(storage.publish, scratch / method, f"s3://bench/up-{method}"))
        shutil.rmtree(scratch / method)
        copies = theirs.wall + down * len(models) / len(names) + up
        print(
            f"{method:10} ours {ours.wall:6.1f} s (cpu {ours.cpu:.1f} s, peak {ours.peak:.0f} MiB)   "
            f"mergekit local {theirs.wall:6.1f} s (cpu {theirs.cpu:.1f} s, peak {theirs.peak:.0f} MiB), "
            f"with copies {copies:6.1f} s   floor {floor:.1f} s"
        )
        print(
            f"{'':10} => {copies / ours.wall:.1f} times faster than with copies (goal {GOALS.get(method, '-')}), "
            f"{theirs.wall / ours.wall:.1f} than local; {ours.wall / floor:.2f} times the floor "
            f"(goal {FLOORS.get(method, '-')})",
            flush=True,
        )


def threads(storage: Storage) -> None:
    """How it scales, up to the processors that there are."""
    processors = len(os.sched_getaffinity(0))
    for count in sorted({1, 2, processors // 2, processors} - {0}):
        run, _ = timed(worker(storage.settings, "ties", f"threads-{count}", options={"threads": count}))
        print(f"ties, {count} computing threads: {run.wall:.1f} s", flush=True)


def memory(storage: Storage, sizes: list[float], scratch: Path, picture: Path | None) -> None:
    """Peak memory by the size of the models, all at the default limit."""
    curves = []
    for billions in sizes:
        publish(storage, billions, scratch / "sized")
        shutil.rmtree(scratch / "sized")
        curves.append(watched(f"{billions:g} B", worker(storage.settings, "ties", f"memory-{billions}")))
        print(f"ties, {billions:g} B numbers: peak {curves[-1].peak:.0f} MiB of {_LIMIT >> 20}", flush=True)
    if picture and curves:
        picture.write_text(svg([curves[0], curves[-1]], _LIMIT / 2**20))


def kills(storage: Storage, method: str, wanted: int) -> None:
    """kill -9 at random moments, again and again, until enough; then to the end: the digest must be the same."""
    plain = timed(worker(storage.settings, method, f"{method}-reference"))
    reference = json.loads(plain[1].splitlines()[-1])["digest"]
    dice, done, rounds, different = random.Random(1), 0, 0, 0  # noqa: S311 - repeatable moments
    while done < wanted:
        rounds += 1
        output, finished, text = f"{method}-killed-{rounds}", False, ""
        while not finished and done < wanted:
            process = subprocess.Popen(worker(storage.settings, method, output), stdout=subprocess.PIPE, text=True)
            assert process.stdout
            process.stdout.readline()
            timer = threading.Timer(dice.uniform(0, plain[0].wall), process.kill)
            timer.start()
            text = process.stdout.read()
            finished = process.wait() == 0
            timer.cancel()
            done += not finished
        if not finished:
            text = timed(worker(storage.settings, method, output))[1]
        different += json.loads(text.splitlines()[-1])["digest"] != reference
    print(f"| {method} | {done} | {rounds} | {different} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=float, default=0.25, help="numbers of a model, in billions")
    parser.add_argument("--methods", default=",".join(GOALS), help="comma-separated; empty: no comparison")
    parser.add_argument("--sizes", default="", help="comma-separated billions, such as 0.25,0.5,1")
    parser.add_argument("--picture", type=Path, help="an SVG of memory over time, of the first and the last size")
    parser.add_argument("--kills", type=int, default=0, help="kill -9 so often at random moments, each method")
    given = parser.parse_args()
    methods = [name for name in given.methods.split(",") if name]
    with s3_server() as server, tempfile.TemporaryDirectory(prefix="pinnace-bench-") as name:
        scratch = Path(name)
        raw_client(server.endpoint).create_bucket(Bucket="bench")
        storage = Storage(S3Settings("bench", endpoint=server.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY))
        if methods:
            folders = publish(storage, given.parameters, scratch)
            compare(storage, folders, scratch, methods)
        if "ties" in methods:
            threads(storage)
        if given.kills:
            print("| method | kills | merges that were finished | with another digest |\n|---|---|---|---|")
            for method in methods:
                kills(storage, method, given.kills)
        memory(storage, [float(size) for size in given.sizes.split(",") if size], scratch, given.picture)


if __name__ == "__main__":
    main()
