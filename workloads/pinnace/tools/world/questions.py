"""Questions of several hops with their answers and the evidence: the offline world's benchmark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pinnace.tools.world.facts import (
    DESCRIPTIONS,
    Relation,
    Value,
    document_of,
    region_path,
    relations_of,
    statement,
    table_row,
    values_of,
)
from pinnace.tools.world.graph import Entity
from pinnace.tools.world.rng import Rng
from pinnace.tools.world.site import ORIGIN, World

MOST_HOPS = 12


@dataclass(frozen=True)
class Step:
    """One piece of evidence: `statement` stands at `url`, `query` finds that by search; it gives `obtains`."""

    url: str
    statement: str
    query: str
    obtains: str


@dataclass(frozen=True)
class Question:
    """A question with its one right answer; `path` has the facts that must be put together."""

    id: str
    text: str
    answer: str
    kind: str
    path: tuple[Step, ...]

    @property
    def hops(self) -> int:
        """How many documents must be read."""
        return len(self.path)


def questions(world: World, *, seed: int, n: int, hops: int) -> tuple[Question, ...]:
    """`n` different questions of `hops` hops each, the same for the same arguments; more of them begin with the fewer.

    Raises:
        ValueError: `hops` is out of range, or the world is too small for that many.
    """
    if not 1 <= hops <= MOST_HOPS:
        raise ValueError(f"hops must be between 1 and {MOST_HOPS}, not {hops}")
    seen: dict[str, Question] = {}
    for question in _stream(world, seed, hops):
        seen.setdefault(question.text, question)
        if len(seen) == n:
            break
    if len(seen) < n:
        raise ValueError(f"this world has no {n} questions of {hops} hops: build one with more pages")
    return tuple(seen.values())


def is_right(question: Question, answer: str) -> bool:
    """Whether an answer is the right one, but for case, spaces, quotes, thousands separators and a full stop."""
    return _normal(answer) == _normal(question.answer)


def _normal(text: str) -> str:
    text = re.sub(r"(?<=\d)[ ,\u00a0](?=\d{3}\b)", "", text.strip())
    return " ".join(text.strip(" .\"'“”").casefold().split())


def _stream(world: World, seed: int, hops: int) -> Iterator[Question]:
    tries = 0
    while tries < 200_000:  # enough for every world; a bound all the same
        rng = Rng(world.seed, "question", seed, hops, tries)
        tries += 1
        name = f"w{world.seed}-s{seed}-h{hops}-{tries}"
        # With two hops and more, one in five compares; of single facts, one in five is read off a whole table.
        if rng.chance(20):
            question = _largest(world, rng, name) if hops == 1 else _compared(world, rng, name, hops)
        else:
            question = _chain(world, rng, name, hops)
        if question is not None:
            yield question


def _start(world: World, rng: Rng) -> tuple[Entity, str]:
    """An entity and how the question names it: by name, or by something that only it has."""
    entity = rng.choice(world.graph.entities())
    if entity.kind in DESCRIPTIONS and rng.chance(50):
        name, phrase = DESCRIPTIONS[entity.kind]
        return entity, phrase.format(v=entity.values[name])
    return entity, entity.name


def _walk(entity: Entity, phrase: str, rng: Rng, steps: int) -> tuple[Entity, str, list[Step]] | None:
    """Follows `steps` relations; None where it would come back to an entity (the question could be cut short)."""
    visited = {entity.path}
    path: list[Step] = []
    for _ in range(steps):
        relation = rng.choice(relations_of(entity.kind))
        target = entity.links[relation.name]
        if target.path in visited:
            return None
        visited.add(target.path)
        path.append(_relation_step(entity, relation, phrase if not path else entity.name))
        phrase = _ask(relation.phrase, phrase)
        entity = target
    return entity, phrase, path


def _ask(pattern: str, phrase: str) -> str:
    """The pattern about a name or, without its quotes, about a phrase that stands for one."""
    return (pattern.replace("“", "").replace("”", "") if phrase.startswith("the ") else pattern).format(s=phrase)


def _relation_step(entity: Entity, relation: Relation, known_as: str) -> Step:
    target = entity.links[relation.name]
    said = relation.sentence.format(s=entity.name, o=target.name)
    return Step(ORIGIN + entity.path, said, known_as, target.name)


def _value_step(entity: Entity, value: Value, known_as: str) -> Step:
    query = {"table": f"Towns of {entity.values.get('region')}", "pdf": f"{entity.name} report full paper"}.get(
        value.where, known_as
    )
    return Step(ORIGIN + document_of(entity, value), statement(entity, value), query, str(entity.values[value.name]))


def _chain(world: World, rng: Rng, name: str, hops: int) -> Question | None:
    start, phrase = _start(world, rng)
    walked = _walk(start, phrase, rng, hops - 1)
    if walked is None:
        return None
    entity, phrase, path = walked
    # The last fact: a value, or (one in three) an entity's name.
    if rng.chance(33):
        relation = rng.choice(relations_of(entity.kind))
        if entity.links[relation.name].path in {start.path, entity.path}:
            return None
        last = _relation_step(entity, relation, phrase if not path else entity.name)
        return Question(name, _ask(relation.question, phrase), last.obtains, "chain", (*path, last))
    value = rng.choice([value for value in values_of(entity.kind) if not _gives_away(entity, value, phrase)])
    last = _value_step(entity, value, phrase if not path else entity.name)
    return Question(name, _ask(value.question, phrase), last.obtains, "chain", (*path, last))


def _gives_away(entity: Entity, value: Value, phrase: str) -> bool:
    """Whether the question already says the answer (an event's year, a paper's method, what it is described by)."""
    return str(entity.values[value.name]).casefold() in phrase.casefold()


_AGE = {"born": "was born earlier", "founded": "was founded earlier"}


def _compared(world: World, rng: Rng, name: str, hops: int) -> Question | None:
    """Which of two (people or companies) was earlier: one is reached by hops - 2 relations, the other is named."""
    other = rng.choice((*world.graph.people, *world.graph.companies))
    value = next(value for value in values_of(other.kind) if value.name in _AGE)
    start, phrase = _start(world, rng)
    walked = _walk(start, phrase, rng, hops - 2)
    if walked is None:
        return None
    entity, phrase, path = walked
    if entity.kind is not other.kind or entity is other or entity.values[value.name] == other.values[value.name]:
        return None
    earlier = min(entity, other, key=lambda each: each.number(value.name))
    evidence = (
        *path,
        _value_step(entity, value, phrase if not path else entity.name),
        _value_step(other, value, other.name),
    )
    text = f"Which {_AGE[value.name]}: {phrase} or {other.name}? Give the full name."
    return Question(name, text, earlier.name, "comparison", evidence)


def _largest(world: World, rng: Rng, name: str) -> Question:
    """The first or last of a region's table by a column."""
    region = rng.choice(tuple(world.graph.regions))
    towns = world.graph.regions[region]
    most = rng.chance(50)
    pick = max if most else min
    town = pick(towns, key=lambda each: each.number("population"))
    text = f"Which town in {region} has the {'most' if most else 'fewest'} inhabitants?"
    step = Step(ORIGIN + region_path(region), table_row(town), f"Towns of {region}", town.name)
    return Question(name, text, town.name, "table", (step,))
