"""The facts of a world: entities, functional relations between them, and values. Pure; no text is made here."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import StrEnum

from pinnace.tools.world.names import Names
from pinnace.tools.world.rng import Rng

PROFESSIONS = (
    *("cartographer", "glassblower", "botanist", "shipwright", "astronomer", "typesetter", "hydrologist", "violinist"),
    *("beekeeper", "lexicographer", "metallurgist", "lighthouse engineer", "historian", "pilot", "statistician"),
)
PRESENT = 2024  # no fact is later


class Kind(StrEnum):
    """What an entity is; the value is the first part of its pages' paths."""

    PERSON = "people"
    PLACE = "places"
    COMPANY = "companies"
    EVENT = "events"
    PAPER = "papers"


@dataclass
class Entity:
    """One thing of the world. `links` are functional relations (name → entity), `values` its own figures and words."""

    kind: Kind
    name: str
    links: dict[str, Entity] = field(default_factory=dict, repr=False)
    values: dict[str, int | str] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """Its name in a path."""
        return self.name.lower().replace(" ", "-")

    @property
    def path(self) -> str:
        """Its page."""
        return f"/{self.kind}/{self.slug}"

    def number(self, name: str) -> int:
        """A value that is an integer."""
        value = self.values[name]
        if not isinstance(value, int):
            raise TypeError(f"{name} of {self.name} is no number")
        return value


@dataclass(frozen=True)
class Graph:
    """All entities by kind. `people` are in order of birth; `regions` maps a region's name to its towns."""

    people: tuple[Entity, ...]
    places: tuple[Entity, ...]
    companies: tuple[Entity, ...]
    events: tuple[Entity, ...]
    papers: tuple[Entity, ...]
    regions: dict[str, tuple[Entity, ...]]

    def entities(self) -> tuple[Entity, ...]:
        """All of them, in the order of their kinds."""
        return (*self.people, *self.places, *self.companies, *self.events, *self.papers)


def build_islands(*, seed: int, size: int, islands: int) -> tuple[Graph, ...]:
    """Graphs of together about `size` entities, between which there is no link; no name is used twice."""
    names = Names(seed)
    streams = [Rng(seed, "graph"), *(Rng(seed, "graph", number) for number in range(1, islands))]
    return tuple(_build_graph(names, rng, size // islands) for rng in streams)


def joined(islands: tuple[Graph, ...]) -> Graph:
    """All of them as one."""
    regions = {name: towns for each in islands for name, towns in each.regions.items()}
    people = sorted((person for each in islands for person in each.people), key=lambda each: each.number("born"))
    places, companies, events, papers = (
        tuple(entity for each in islands for entity in getattr(each, kind))
        for kind in ("places", "companies", "events", "papers")
    )
    return Graph(tuple(people), places, companies, events, papers, regions)


def _build_graph(names: Names, rng: Rng, size: int) -> Graph:
    """A graph of about `size` entities (at least 60). Every relation and every value is set for every entity."""
    regions = [names.region() for _ in range(max(3, size // 250))]
    places = _places(names, rng, regions, max(10, size * 13 // 100))
    people = _people(names, rng, places, max(30, size * 42 // 100))
    companies = _companies(names, rng, people, places, max(8, size * 15 // 100))
    events = _events(names, rng, people, places, companies, max(6, size * 14 // 100))
    papers = _papers(names, rng, people, events, max(6, size * 16 // 100))
    for place in places:
        place.links["mayor"] = _adult(people, rng, in_year=PRESENT - 10, at_least=30)
    for person in people:
        person.links["employer"] = rng.choice(companies)
    by_region = {region: tuple(place for place in places if place.values["region"] == region) for region in regions}
    return Graph(tuple(people), tuple(places), tuple(companies), tuple(events), tuple(papers), by_region)


def _places(names: Names, rng: Rng, regions: list[str], count: int) -> list[Entity]:
    places = []
    for i in range(count):
        place = Entity(Kind.PLACE, names.place())
        place.values = {
            "region": regions[i % len(regions)],
            "river": names.river(),
            "founded": rng.between(900, 1800),
            # Odd and far apart, so that no two towns of a region tie.
            "population": rng.between(2, 900) * 1000 + i,
            "elevation": rng.between(1, 1400),
        }
        places.append(place)
    order = list(places)
    rng.shuffle(order)
    for i, place in enumerate(order):
        place.links["twin"] = order[(i + 1) % len(order)]
    return places


def _people(names: Names, rng: Rng, places: list[Entity], count: int) -> list[Entity]:
    births = sorted(rng.between(1900, 1995) for _ in range(count))
    people: list[Entity] = []
    for birth in births:
        person = Entity(Kind.PERSON, names.person())
        person.values = {"born": birth, "profession": rng.choice(PROFESSIONS)}
        person.links = {"birthplace": rng.choice(places)}
        people.append(person)
    for i, person in enumerate(people):
        # A mentor was born at least fifteen years earlier; the eldest have one of their own age.
        elders = bisect_left(births, births[i] - 15)
        person.links["mentor"] = people[rng.below(elders)] if elders else people[(i + 1) % len(people)]
    return people


def _adult(people: list[Entity], rng: Rng, *, in_year: int, at_least: int) -> Entity:
    """Somebody who was old enough then, and not yet ninety where that can be had."""
    births = [person.number("born") for person in people]
    high = max(1, bisect_left(births, in_year - at_least + 1))
    low = min(bisect_left(births, in_year - 90), high - 1)
    return people[rng.between(low, high - 1)]


def _companies(names: Names, rng: Rng, people: list[Entity], places: list[Entity], count: int) -> list[Entity]:
    companies = []
    for _ in range(count):
        company = Entity(Kind.COMPANY, names.company())
        founded = rng.between(1935, 2015)
        revenue = rng.between(200, 90_000)
        company.values = {"founded": founded, "product": names.product(), "staff": rng.between(8, 4000)}
        for year in range(PRESENT - 4, PRESENT + 1):
            revenue = revenue * rng.between(88, 118) // 100 + 1
            company.values[f"revenue {year}"] = revenue
        company.links = {
            "founder": _adult(people, rng, in_year=founded, at_least=20),
            "headquarters": rng.choice(places),
        }
        companies.append(company)
    for i, company in enumerate(companies):
        company.links["supplier"] = companies[(i + rng.between(1, count - 1)) % count]
    return companies


def _events(
    names: Names, rng: Rng, people: list[Entity], places: list[Entity], companies: list[Entity], count: int
) -> list[Entity]:
    events = []
    for _ in range(count):
        organiser = rng.choice(companies)
        year = rng.between(max(1960, organiser.number("founded")), PRESENT)
        event = Entity(Kind.EVENT, names.event(year))
        event.values = {"year": year, "prize": names.prize(), "visitors": rng.between(90, 60_000)}
        event.links = {
            "venue": rng.choice(places),
            "winner": _adult(people, rng, in_year=year, at_least=18),
            "organiser": organiser,
        }
        events.append(event)
    return events


def _papers(names: Names, rng: Rng, people: list[Entity], events: list[Entity], count: int) -> list[Entity]:
    papers: list[Entity] = []
    for i in range(count):
        method, event = names.method(), rng.choice(events)
        paper = Entity(Kind.PAPER, names.paper(method))
        year = event.number("year")
        paper.values = {"method": method, "year": year, "participants": rng.between(12, 9000) * 10 + i % 10}
        paper.links = {"author": _adult(people, rng, in_year=year, at_least=22), "event": event}
        papers.append(paper)
    by_year = sorted(papers, key=lambda paper: (paper.number("year"), paper.name))
    for i, paper in enumerate(by_year):
        # The first has nothing older to stand on.
        paper.links["builds on"] = by_year[rng.below(i)] if i else by_year[1]
    return papers
