"""Scout: deep-search questions over the offline world, of any number of hops, in English and Chinese.

A question follows relations from page to page; each hop's fact stands on one page only, so the answer is reached along
its chain or not at all. Train, validation and test questions are on islands of their own: they share no page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pinnace.tools.world import scout_words as words
from pinnace.tools.world.facts import Relation, Value, relations_of, statement, values_of
from pinnace.tools.world.graph import Entity, Graph, Kind
from pinnace.tools.world.questions import Step
from pinnace.tools.world.rng import Rng
from pinnace.tools.world.site import ORIGIN, World

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
SPLITS = ("train", "validation", "test")
LEVELS = (1, 2, 4, 8, 16, 32, 64, 128)
MOST_HOPS = 256
_MEMORY_FROM = 8  # hops from which some questions ask about everything on the way
_LOOKS = 5000  # steps of one search for a way
_TRIES = 50
# Answers that can't be guessed: a profession or a year can.
_ASKED = {"river", "product", "prize", "visitors", "method"}


@dataclass(frozen=True)
class Task:
    """A question with its one right answer. `evidence` has each page that must be read, with what it says.

    `kind` is `chain` (the last fact is the answer) or `memory` (facts of all pages on the way are needed at the end).
    """

    id: str
    split: str
    language: Language
    hops: int
    kind: Literal["chain", "memory"]
    question: str
    answer: str
    evidence: tuple[Step, ...]


@dataclass(frozen=True)
class _Way:
    """Entities in order, and the relation by which each but the last leads on."""

    entities: tuple[Entity, ...]
    relations: tuple[Relation, ...]


def tasks(world: World, split: str, *, seed: int, hops: int, language: Language, n: int) -> tuple[Task, ...]:
    """`n` different questions that need `hops` pages each; more of them begin with the fewer.

    Raises:
        ValueError: an argument is out of range, or the world is too small for that many.
    """
    if split not in SPLITS or len(world.islands) < len(SPLITS):
        raise ValueError(f"splits are {', '.join(SPLITS)}, in a world of as many islands; asked for {split!r}")
    if not 1 <= hops <= MOST_HOPS:
        raise ValueError(f"hops must be between 1 and {MOST_HOPS}, not {hops}")
    island = world.islands[SPLITS.index(split)]
    made: dict[str, Task] = {}
    for task in _stream(island, Rng(world.seed, "scout", seed, split, language, hops), hops, language, n):
        made.setdefault(task.question, replace(task, id=f"{split}-{language}-{hops:03d}-{len(made):04d}", split=split))
        if len(made) == n:
            return tuple(made.values())
    raise ValueError(f"this world has no {n} questions of {hops} hops in {split}: build one with more pages")


def _stream(island: Graph, rng: Rng, hops: int, language: Language, n: int) -> Iterator[Task]:
    for _ in range(_TRIES * (n + 1)):
        way = _way(island, rng, hops)
        if way is None:
            continue
        task = _memory(way, language) if hops >= _MEMORY_FROM and rng.chance(33) else None
        task = task or _chain(way, rng, language)
        if task is not None:
            yield task


def _way(island: Graph, rng: Rng, hops: int) -> _Way | None:
    """A way over `hops` entities that meets none twice: depth first, so that a dead end is left again."""
    start = rng.choice(island.entities())
    entities, taken, left = [start], list[Relation](), [_shuffled(start, rng)]
    visited = {start.path}
    for _ in range(_LOOKS):
        if len(entities) == hops:
            return _Way(tuple(entities), tuple(taken))
        if not left[-1]:
            left.pop()
            visited.discard(entities.pop().path)
            if not entities:
                return None
            taken.pop()
            continue
        relation = left[-1].pop()
        target = entities[-1].links[relation.name]
        if target.path not in visited:
            visited.add(target.path)
            entities.append(target)
            taken.append(relation)
            left.append(_shuffled(target, rng))
    return None


def _shuffled(entity: Entity, rng: Rng) -> list[Relation]:
    relations = list(relations_of(entity.kind))
    rng.shuffle(relations)
    return relations


def _chain(way: _Way, rng: Rng, language: Language) -> Task | None:
    """Asks for a fact of the last entity; None where its answer is on the way already."""
    last, fact = way.entities[-1], rng.choice(_facts(way.entities[-1]))
    answer = last.links[fact.name].name if isinstance(fact, Relation) else str(last.values[fact.name])
    start = words.start(way.entities[0], language, described=rng.chance(50))
    question = words.chain(start, way.relations, fact, language)
    if answer in {entity.name for entity in way.entities} or answer.casefold() in question.casefold():
        return None
    final = Step(ORIGIN + last.path, _said(last, fact), last.name, answer)
    return _task(question, answer, "chain", (*_steps(way), final), language, len(way.entities))


def _facts(entity: Entity) -> tuple[Relation | Value, ...]:
    values = tuple(value for value in values_of(entity.kind) if value.name in _ASKED)
    return (*relations_of(entity.kind), *values)


_AGES = {Kind.PERSON: "born", Kind.COMPANY: "founded"}


def _memory(way: _Way, language: Language) -> Task | None:
    """Asks which of the people (or companies) on the way is oldest.

    None where the last page would not be needed, where there are fewer than three, or where the question names it.
    """
    for kind, age in _AGES.items():
        passed = sorted((each for each in way.entities if each.kind is kind), key=lambda each: each.number(age))
        if way.entities[-1].kind is not kind or len(passed) < 3 or passed[0] is way.entities[0]:
            continue
        if passed[0].number(age) == passed[1].number(age):
            continue
        value = next(value for value in values_of(kind) if value.name == age)
        evidence: list[Step] = []
        steps = {step.url: step for step in _steps(way)}
        for entity in way.entities:
            url = ORIGIN + entity.path
            if entity.kind is kind:
                evidence.append(Step(url, statement(entity, value), entity.name, str(entity.values[age])))
            evidence += [steps[url]] if url in steps else []
        start = words.start(way.entities[0], language, described=False)
        question = words.memory(start, way.relations, kind, language)
        return _task(question, passed[0].name, "memory", tuple(evidence), language, len(way.entities))
    return None


def _steps(way: _Way) -> tuple[Step, ...]:
    return tuple(
        Step(ORIGIN + entity.path, _said(entity, relation), entity.name, entity.links[relation.name].name)
        for entity, relation in zip(way.entities, way.relations, strict=False)
    )


def _said(entity: Entity, fact: Relation | Value) -> str:
    if isinstance(fact, Value):
        return statement(entity, fact)
    return fact.sentence.format(s=entity.name, o=entity.links[fact.name].name)


def _task(
    question: str,
    answer: str,
    kind: Literal["chain", "memory"],
    evidence: tuple[Step, ...],
    language: Language,
    hops: int,
) -> Task:
    return Task("", "", language, hops, kind, question, answer, evidence)
