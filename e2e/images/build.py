"""Building a set of images: what is up to date stays, shared layers come first, the rest two at a time."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from e2e.images.engine import CONTENT_LABEL, ROOT, Buildah, Docker, Engine, Order, Say
from e2e.images.errors import ImageError
from e2e.images.preflight import check_disk, check_machine, disk_needed, shared_layers_there
from e2e.images.recipe import Recipe, revision

#: Downloads of one image overlap with compiling another; more than two only fight over the cores.
PARALLEL = 2
REVISION_LABEL = "org.opencontainers.image.revision"


@dataclass(frozen=True)
class Built:
    """One image after a build: how long it took, 0 when it was up to date."""

    order: Order
    seconds: float
    rebuilt: bool


def choose(name: str) -> Engine:
    """The engine called `name`, after its machine checks."""
    return Docker() if name == "docker" else Buildah()


@contextmanager
def _alone(say: Say) -> Iterator[None]:
    """One build at a time in a cache: the end of a build prunes layers that another would still be reading."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build works in this cache: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(recipes: Sequence[Recipe], device: str, engine: Engine, say: Say) -> list[Built]:
    """Build what is out of date.

    Raises ImageError before anything starts when a program or disk space is missing, and when a build fails.
    """
    with _alone(say):
        return _build(recipes, device, engine, say)


def _build(recipes: Sequence[Recipe], device: str, engine: Engine, say: Say) -> list[Built]:
    if isinstance(engine, Buildah):
        check_machine(say)
        if device != "cpu":
            check_disk(40 << 10, say)
    base = engine.base(say)
    orders = [_order(recipe, device, base) for recipe in recipes]
    stale = [order for order in orders if not up_to_date(order, engine)]
    if stale and isinstance(engine, Buildah):
        check_disk(disk_needed([order.recipe for order in stale], shared_there=shared_layers_there()), say)
    built = {order: Built(order, 0.0, rebuilt=False) for order in orders}
    light = [order for order in stale if not order.recipe.heavy]
    heavy = [order for order in stale if order.recipe.heavy]
    # The first heavy image builds the torch layer; only then can the others find it.
    for wave in (light + heavy[:1], heavy[1:]):
        built.update({each.order: each for each in _wave(wave, engine, say)})
    if stale and isinstance(engine, Buildah):
        engine.prune()
    return [built[order] for order in orders]


def up_to_date(order: Order, engine: Engine) -> bool:
    """Whether the image that is there has the same content.

    Another commit with the same content needs no build. One exception: what was built from a dirty tree and is
    committed by now gets its honest revision, which costs a second.
    """
    labels = engine.labels(order.reference)
    was_dirty = labels.get(REVISION_LABEL, "").endswith("-dirty")
    return labels.get(CONTENT_LABEL) == order.content and was_dirty == order.revision.endswith("-dirty")


def _order(recipe: Recipe, device: str, base: str) -> Order:
    return Order(recipe, device, recipe.content(device, base), revision(recipe.inputs(device)))


def _wave(orders: Sequence[Order], engine: Engine, say: Say) -> list[Built]:
    stop = threading.Event()

    def one(order: Order) -> Built:
        if stop.is_set():
            raise ImageError(f"{order.recipe.name}: not started, as another build failed")
        started = time.monotonic()
        try:
            engine.build(order, lambda text: say(f"{order.recipe.name:<15} {text}"))
        except ImageError:
            stop.set()
            raise
        took = time.monotonic() - started
        say(f"{order.recipe.name:<15} built in {took:.0f} s")
        return Built(order, took, rebuilt=True)

    with ThreadPoolExecutor(PARALLEL) as pool:
        return [future.result() for future in [pool.submit(one, order) for order in orders]]
