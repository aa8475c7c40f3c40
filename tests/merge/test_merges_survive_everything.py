"""From S3 to S3: killed at any moment, with any number of threads and any memory, the output is the same."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pinnace.merge import Interrupted, RunOptions, run
from pinnace.merge.groups import groups
from pinnace.merge.plan import Plan
from pinnace.merge.sources import Places, plan_document
from pinnace.merge.state import STATE
from pinnace.storage import Patience, S3Settings, Storage
from pinnace.storage.manifest import Manifest

from e2e.faults.s3proxy import Fault, S3Proxy
from e2e.merging import Shape, family
from e2e.stored import keys, raw_client
from tests.merge.merges import ROOMY

WORKER = [sys.executable, "-m", "e2e.merge_worker"]
SHAPE = Shape(layers=1, hidden=640, inner=1400, vocabulary=20011, heads=10, kv_heads=5, head=64)
PART = 12 << 20
TIGHT = 64 << 20
METHODS = ["linear", "ties", "della"]


@pytest.fixture(scope="module")
def stored(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> S3Settings:
    """A bucket with a base and two models of 20 million numbers."""
    raw = raw_client(s3.endpoint)
    raw.create_bucket(Bucket="merges")
    from e2e.s3 import ACCESS_KEY, SECRET_KEY

    settings = S3Settings("merges", endpoint=s3.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    storage = Storage(settings)
    for folder in family(tmp_path_factory.mktemp("family"), SHAPE, dtype=torch.bfloat16):
        storage.publish(folder, f"s3://merges/{folder.name}")
    return settings


def config(method: str) -> dict[str, Any]:
    own = [{"weight": 0.6, "density": 0.4, "epsilon": 0.1}, {"weight": 0.3, "density": 0.5, "epsilon": 0.1}]
    return {
        "merge_method": method,
        "models": [{"model": f"s3://merges/m{i}", "parameters": own[i]} for i in range(2)],
        "dtype": "float32",
        "out_dtype": "bfloat16",
    } | ({} if method == "linear" else {"base_model": "s3://merges/base"})


def plan_of(storage: Storage, method: str, **changes: Any) -> Plan:
    plan, _ = plan_document(config(method) | changes, Places(lambda: storage), part_bytes=PART)
    return plan


def target(storage: Storage, name: str) -> Any:
    return storage.settings.root / "out" / name


def files(storage: Storage, name: str) -> dict[str, str]:
    """What the manifest says about the weights."""
    manifest = Manifest.parse(storage.store.read(target(storage, name) / "manifest.json"))
    return {file.path: file.sha256 for file in manifest.files}


def arguments(settings: S3Settings, method: str, output: str, **more: Any) -> str:
    given = asdict(settings)
    given.pop("patience")
    return json.dumps(
        {"settings": given, "config": config(method), "output": f"s3://merges/out/{output}", "partBytes": PART} | more
    )


@pytest.fixture(scope="module")
def reference(stored: S3Settings) -> Any:
    """The digest of an undisturbed merge of each method."""
    storage, done = Storage(stored), {}

    def get(method: str) -> tuple[str, dict[str, str]]:
        if method not in done:
            done[method] = run(
                plan_of(storage, method), storage.store, target(storage, f"{method}-reference"), options=ROOMY
            ).digest
        return done[method], files(storage, f"{method}-reference")

    return get


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_threads_and_memory_change_nothing(stored: S3Settings, reference: Any, method: str) -> None:
    storage = Storage(stored)
    for name, options in {
        "one": RunOptions(threads=1, transfers=2, buffers=300 << 20),
        "many": RunOptions(threads=5, transfers=8, buffers=300 << 20),
        "tight": RunOptions(threads=1, transfers=2, buffers=TIGHT),
    }.items():
        run(plan_of(storage, method), storage.store, target(storage, f"{method}-{name}"), options=options)
        assert files(storage, f"{method}-{name}") == reference(method)[1]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ties"])  # e2e/bench/merge.py kills more
def test_killed_at_random_writes(stored: S3Settings, reference: Any, killed: Any, method: str) -> None:
    dice = random.Random(method)
    kills = 0
    for _ in range(6):
        with subprocess.Popen(
            [*WORKER, arguments(stored, method, f"{method}-killed", dieAt=dice.randint(1, 9))],
            stdout=subprocess.DEVNULL,
        ) as child:
            kills += child.wait() == -signal.SIGKILL
    assert kills
    answer = subprocess.run(
        [*WORKER, arguments(stored, method, f"{method}-killed")], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout.splitlines()[-1])["digest"] == reference(method)[0]
    left = keys(raw_client(stored.endpoint or ""), "merges")
    assert not [key for key in left if f"{method}-killed" in key and key.endswith(STATE)]
    killed(f"{method}, before a random write", kills, "same digest")


def test_a_finished_merge_is_not_made_again(stored: S3Settings, reference: Any) -> None:
    storage = Storage(stored)
    digest, _ = reference("linear")
    told: list[Any] = []
    again = run(
        plan_of(storage, "linear"),
        storage.store,
        target(storage, "linear-reference"),
        progress=told.append,
        options=ROOMY,
    )
    assert (again.digest, told) == (digest, [])


def test_a_merge_that_is_asked_to_stop_goes_on_later(stored: S3Settings, reference: Any) -> None:
    storage, stop = Storage(stored), threading.Event()
    plan, to = plan_of(storage, "linear"), target(storage, "stopped")
    seen: list[int] = []

    def progress(now: Any) -> None:
        seen.append(now.bytes)
        stop.set()

    options = RunOptions(threads=1, transfers=1, buffers=TIGHT)
    with pytest.raises(Interrupted):
        run(plan, storage.store, to, progress=progress, stop=stop, options=options)
    begun = max(seen)
    assert 0 < begun < plan.output_bytes
    seen.clear()
    stop = threading.Event()
    run(plan, storage.store, to, progress=lambda now: seen.append(now.bytes), options=options)
    assert min(seen) >= begun
    assert files(storage, "stopped") == reference("linear")[1]


def test_another_plan_starts_afresh(stored: S3Settings, reference: Any, tmp_path: Path) -> None:
    storage, stop = Storage(stored), threading.Event()
    to = target(storage, "replanned")
    with pytest.raises(Interrupted):
        run(
            plan_of(storage, "ties"),
            storage.store,
            to,
            progress=lambda _: stop.set(),
            stop=stop,
            options=RunOptions(threads=1, transfers=1, buffers=TIGHT),
        )
    run(plan_of(storage, "linear"), storage.store, to, options=ROOMY)
    assert files(storage, "replanned") == reference("linear")[1]
    assert not list(storage.store.unfinished_parts(to))


def test_these_merges_have_many_parts(stored: S3Settings) -> None:
    """Or the tests above would prove little: several parts, tensors that span them, some too big to be kept."""
    plan = plan_of(Storage(stored), "ties")
    assert len(plan.shards[0].parts) >= 4
    assert max(group.cost(plan) for group in groups(plan, plan.shards[0])) > TIGHT // 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [Fault("busy", times=6), Fault("cut", after=300_000, times=6), Fault("reset", after=50_000, times=6)],
    ids=lambda fault: fault.kind,
)
def test_a_store_that_fails_for_a_while_changes_nothing(
    stored: S3Settings, s3: Any, reference: Any, fault: Fault
) -> None:
    with S3Proxy(s3.port).running() as proxy:
        storage = Storage(replace(stored, endpoint=proxy.endpoint, patience=Patience(connect=2, read=5, attempts=2)))
        plan = plan_of(storage, "linear")
        proxy.fault = fault
        run(plan, storage.store, target(storage, f"faulty-{fault.kind}"), options=ROOMY)
    assert fault.hits == 6
    assert files(Storage(stored), f"faulty-{fault.kind}") == reference("linear")[1]


@pytest.mark.slow
def test_the_process_stays_below_its_memory_limit(stored: S3Settings) -> None:
    """By the kernel's account; the models together are larger than what the limit leaves for them."""
    limit = 640 << 20
    answer = subprocess.run(
        [*WORKER, arguments(stored, "ties", "limited", options={"memory": limit, "threads": 2, "transfers": 2})],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(answer.stdout.splitlines()[-1])["peak"] <= limit
