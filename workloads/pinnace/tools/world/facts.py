"""What can be asked of an entity: each relation and value once, with the sentence that states it and its question."""

from __future__ import annotations

from dataclasses import dataclass

from pinnace.tools.world.graph import PRESENT, Entity, Kind


@dataclass(frozen=True)
class Relation:
    """A functional relation: `sentence` states it of {s} (subject) and {o} (object), `phrase` means {o} by {s}."""

    name: str
    of: Kind
    to: Kind
    sentence: str
    phrase: str
    question: str


@dataclass(frozen=True)
class Value:
    """A value of an entity. `where` says where it stands: on its own page, in the region's table, or in its PDF."""

    name: str
    of: Kind
    sentence: str
    question: str
    where: str = "page"


RELATIONS = (
    Relation(
        "birthplace",
        Kind.PERSON,
        Kind.PLACE,
        "{s} was born in {o}.",
        "the birthplace of {s}",
        "In which town was {s} born?",
    ),
    Relation(
        "employer",
        Kind.PERSON,
        Kind.COMPANY,
        "{s} works for {o}.",
        "the company that employs {s}",
        "Which company employs {s}?",
    ),
    Relation(
        "mentor",
        Kind.PERSON,
        Kind.PERSON,
        "{s} was taught by {o}.",
        "the teacher of {s}",
        "Who was the teacher of {s}?",
    ),
    Relation(
        "twin",
        Kind.PLACE,
        Kind.PLACE,
        "{s} is twinned with {o}.",
        "the twin town of {s}",
        "What is the twin town of {s}?",
    ),
    Relation(
        "mayor", Kind.PLACE, Kind.PERSON, "The mayor of {s} is {o}.", "the mayor of {s}", "Who is the mayor of {s}?"
    ),
    Relation("founder", Kind.COMPANY, Kind.PERSON, "{s} was founded by {o}.", "the founder of {s}", "Who founded {s}?"),
    Relation(
        "headquarters",
        Kind.COMPANY,
        Kind.PLACE,
        "{s} has its headquarters in {o}.",
        "the town where {s} has its headquarters",
        "In which town does {s} have its headquarters?",
    ),
    Relation(
        "supplier",
        Kind.COMPANY,
        Kind.COMPANY,
        "The main supplier of {s} is {o}.",
        "the main supplier of {s}",
        "Which company is the main supplier of {s}?",
    ),
    Relation(
        "venue", Kind.EVENT, Kind.PLACE, "{s} was held in {o}.", "the town that hosted {s}", "Which town hosted {s}?"
    ),
    Relation("winner", Kind.EVENT, Kind.PERSON, "{s} was won by {o}.", "the winner of {s}", "Who won {s}?"),
    Relation(
        "organiser",
        Kind.EVENT,
        Kind.COMPANY,
        "{s} was organised by {o}.",
        "the company that organised {s}",
        "Which company organised {s}?",
    ),
    Relation(
        "author",
        Kind.PAPER,
        Kind.PERSON,
        "“{s}” was written by {o}.",
        "the author of “{s}”",
        "Who is the author of “{s}”?",
    ),
    Relation(
        "event",
        Kind.PAPER,
        Kind.EVENT,
        "“{s}” was presented at {o}.",
        "the event at which “{s}” was presented",
        "At which event was “{s}” presented?",
    ),
    Relation(
        "builds on",
        Kind.PAPER,
        Kind.PAPER,
        "“{s}” builds on {o}.",
        "the paper that “{s}” builds on",
        "On which paper does “{s}” build?",
    ),
)

VALUES = (
    Value("born", Kind.PERSON, "{s} was born in {v}.", "In which year was {s} born?"),
    Value("profession", Kind.PERSON, "By profession, {s} is a {v}.", "What is the profession of {s}?"),
    Value("river", Kind.PLACE, "The river {v} runs through {s}.", "Which river runs through {s}?"),
    Value("region", Kind.PLACE, "{s} is a town in {v}.", "In which region is {s}?"),
    Value("population", Kind.PLACE, "population of {s}: {v}", "How many inhabitants does {s} have?", where="table"),
    Value("elevation", Kind.PLACE, "elevation of {s}: {v}", "How many metres above the sea is {s}?", where="table"),
    Value("founded", Kind.COMPANY, "{s} was founded in {v}.", "In which year was {s} founded?"),
    Value("product", Kind.COMPANY, "{s} is known for the {v}.", "For which product is {s} known?"),
    Value("prize", Kind.EVENT, "The winner of {s} received the {v}.", "Which prize was given at {s}?"),
    Value("visitors", Kind.EVENT, "{s} had {v} visitors.", "How many visitors did {s} have?"),
    Value("method", Kind.PAPER, "“{s}” introduces the {v}.", "Which method does “{s}” introduce?"),
    Value(
        "participants",
        Kind.PAPER,
        "Participants: {v}",
        "How many participants did the study in “{s}” have?",
        where="pdf",
    ),
    *(
        Value(
            f"revenue {year}",
            Kind.COMPANY,
            f"Revenue {year}: {{v}}",
            f"What was the revenue of {{s}} in {year}, in thousand crowns?",
            where="pdf",
        )
        for year in range(PRESENT - 4, PRESENT + 1)
    ),
)

# A value that only one entity has: it can stand for the entity's name in a question, which must then be searched for.
DESCRIPTIONS = {
    Kind.COMPANY: ("product", "the company known for the {v}"),
    Kind.EVENT: ("prize", "the event at which the {v} was given"),
    Kind.PAPER: ("method", "the paper that introduces the {v}"),
    Kind.PLACE: ("river", "the town on the river {v}"),
}


def relations_of(kind: Kind) -> tuple[Relation, ...]:
    """In the order of this file."""
    return tuple(relation for relation in RELATIONS if relation.of is kind)


def values_of(kind: Kind) -> tuple[Value, ...]:
    """In the order of this file."""
    return tuple(value for value in VALUES if value.of is kind)


def document_of(entity: Entity, value: Value) -> str:
    """The path of the page or PDF that states the value."""
    if value.where == "table":
        return region_path(str(entity.values["region"]))
    return f"/files/{entity.slug}.pdf" if value.where == "pdf" else entity.path


def region_path(region: str) -> str:
    """The page with a region's tables."""
    return f"/regions/{region.lower()}"


def statement(entity: Entity, value: Value) -> str:
    """The words by which the value is found in that document: a sentence, a table row or a line of a PDF."""
    if value.where == "table":
        return table_row(entity)
    return value.sentence.format(s=entity.name, v=entity.values[value.name])


def table_row(place: Entity) -> str:
    """A town's row in its region's table, as text."""
    cells = (place.name, *(str(place.values[column]) for column in ("population", "elevation", "founded")))
    return "| " + " | ".join(cells) + " |"
