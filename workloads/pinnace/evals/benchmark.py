"""A benchmark: where its data lies, how a row becomes an item, how the agent is asked, how answers are graded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .errors import BadPlan, DataInvalid, NotPinned
from .graders import Profile
from .item import Item
from .source import Fetched, HubData, fetch, is_commit

Reader = Callable[[Fetched], Iterator[Item]]


@dataclass(frozen=True)
class Split:
    """One set of questions.

    Attributes:
        data: its files on the hub.
        keep: which items belong to it; None: all.
        size: how many there are, where that is known: another number is reported, since scores then don't compare.
        graded: whether its answers are public.
    """

    data: HubData
    keep: Callable[[Item], bool] | None = None
    size: int | None = None
    graded: bool = True


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: as on the command line and in records.
        splits: by name; the first is the default.
        read: files to items.
        system: what the agent is told about the form of its answer.
        rule: how its answer is extracted (`pinnace.agent.AnswerRule`).
        profiles: graders by name; `official` is the authors' way.
        gate: what somebody without access must do.
        licence: shown in reports.
        blocked: addresses (host and beginning of the path) that give the questions or answers away.
        must_pin: answers are re-issued, so that a revision must be named.
        needs: names of tools without which nothing can be answered.
        calibrated: the model states its confidence and a calibration error is reported.
    """

    name: str
    title: str
    splits: Mapping[str, Split]
    read: Reader
    system: str
    rule: str
    profiles: Mapping[str, Profile]
    gate: str = ""
    licence: str = ""
    blocked: tuple[str, ...] = ()
    must_pin: bool = False
    needs: tuple[str, ...] = ()
    calibrated: bool = False
    ask: Callable[[Item], str] = field(default=lambda item: item.question)

    def split(self, name: str | None) -> tuple[str, Split]:
        """Raises `BadPlan` with the names there are."""
        name = name or next(iter(self.splits))
        if name not in self.splits:
            raise BadPlan(f"{self.name} has no split {name!r}: use {', '.join(self.splits)}")
        return name, self.splits[name]

    def profile(self, name: str) -> Profile:
        """Raises `BadPlan` with the names there are."""
        if name not in self.profiles:
            raise BadPlan(f"{self.name} has no grader profile {name!r}: use {', '.join(self.profiles)}")
        return self.profiles[name]


@dataclass(frozen=True)
class Loaded:
    """Questions of one split. `warnings` say what keeps scores from being compared with others'."""

    benchmark: Benchmark
    split: str
    items: tuple[Item, ...]
    revision: str
    digest: str
    warnings: tuple[str, ...] = ()

    def limited(self, limit: int | None, ids: Sequence[str] | None = None) -> Loaded:
        """Only these ids, then only the first `limit`. Raises `BadPlan` for an id that is not there."""
        items = self.items
        if ids is not None:
            by_id = {item.id: item for item in items}
            if unknown := [one for one in ids if one not in by_id]:
                raise BadPlan(f"{self.benchmark.name}, {self.split}: no item {unknown[0]!r} ({len(unknown)} unknown)")
            items = tuple(by_id[one] for one in ids)
        return replace(self, items=items[:limit])


def load(
    benchmark: Benchmark,
    *,
    split: str | None = None,
    source: str | None = None,
    revision: str | None = None,
    checksum: str | None = None,
) -> Loaded:
    """Reads and checks a split.

    Raises:
        BadPlan, NotPinned, DataMissing, DataGated, DataChanged, DataInvalid
    """
    name, part = benchmark.split(split)
    asked = revision or part.data.revision
    if benchmark.must_pin and not is_commit(asked) and checksum is None:
        raise NotPinned(
            f"{benchmark.name}: its answers are re-issued from time to time, so scores of two dates don't compare: "
            "give --revision <commit>, or --checksum sha256:… of a copy"
        )
    fetched = fetch(part.data, source=source, revision=revision, checksum=checksum, gate=benchmark.gate)
    items = tuple(item for item in benchmark.read(fetched) if part.keep is None or part.keep(item))
    if not items:
        raise DataInvalid(f"{benchmark.name}, {name}: the files have no question of this split")
    seen: set[str] = set()
    for item in items:
        if item.slug in seen:
            raise DataInvalid(f"{benchmark.name}, {name}: two items have the id {item.id!r}")
        seen.add(item.slug)
    warnings = []
    if part.size is not None and len(items) != part.size:
        warnings.append(f"{len(items)} questions where the published set has {part.size}: scores don't compare")
    if not is_commit(fetched.revision):
        warnings.append("the revision is not pinned")
    return Loaded(benchmark, name, items, fetched.revision, fetched.digest, tuple(warnings))
