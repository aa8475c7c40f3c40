"""What the pages say: an entity's facts in sentences, and sentences around them that state nothing."""

from __future__ import annotations

from pinnace.tools.world.blocks import Block, Heading, Link, Links, Paragraph
from pinnace.tools.world.facts import Relation, document_of, region_path, relations_of, values_of
from pinnace.tools.world.graph import Entity, Graph, Kind
from pinnace.tools.world.rng import Rng

# No figure, no name: padding can't contradict a fact, and a search for a fact does not end in it.
_OPENINGS = (
    *("Visitors often remark that", "Older accounts agree that", "It is sometimes forgotten that"),
    *(
        "Letters of the time suggest that",
        "Those who know the subject well say that",
        "A common misunderstanding is that",
    ),
)
_MIDDLES = (
    *("the early years were quieter than later ones", "the work was slower than anyone had planned"),
    *("weather mattered more than money", "much of the correspondence has been lost"),
    *("the neighbours were not always of one mind", "the best known picture of it is misleading"),
    *("patience was the rarer virtue", "the archives are larger than the building that holds them"),
    *("nobody thought of keeping a record at first", "the first attempts were made by candle light"),
)
_ENDINGS = (
    *("and this has hardly changed.", "although opinions differ.", "which later writers have confirmed."),
    *("and there the matter rested for a long time.", "as the local paper put it.", "or so the story goes."),
)
_SECTIONS = {
    Kind.PERSON: ("Life", "Work", "Reception"),
    Kind.PLACE: ("Setting", "Town life", "Economy"),
    Kind.COMPANY: ("History", "Products", "Outlook"),
    Kind.EVENT: ("Programme", "Aftermath", "Press"),
    Kind.PAPER: ("Summary", "Method", "Discussion"),
}


def blocks_of(entity: Entity, seed: int, length: int = 1) -> tuple[Block, ...]:
    """The body of an entity's page: every relation and every value that stands on it, among sections of padding."""
    rng, more = Rng(seed, "prose", entity.path), Rng(seed, "length", entity.path)
    facts = [_related(entity, name) for name in _relation_sentences(entity)]
    facts += [
        Paragraph((value.sentence.format(s=entity.name, v=entity.values[value.name]),))
        for value in values_of(entity.kind)
        if value.where == "page"
    ]
    rng.shuffle(facts)
    blocks: list[Block] = [padding(rng)]
    sections = _SECTIONS[entity.kind]
    share = -(-len(facts) // len(sections))
    for i, section in enumerate(sections):
        blocks.append(Heading(section))
        for fact in facts[i * share : (i + 1) * share]:
            blocks += [fact, padding(rng)] if rng.chance(60) else [fact]
            blocks += [padding(more) for _ in range(length - 1)]
        blocks.append(padding(rng))
    return (*blocks, *_references(entity))


_NOTES = ("letters about {}", "{} in old newspapers", "recollections of {}", "what is told of {}")
_IDLE = (
    *("Much has been written about {}, and little of it agrees.", "Those who ask about {} should look elsewhere."),
    *("There was once a dispute about {}, which is settled now.", "A whole shelf is devoted to {}; it is not lent."),
)


def note_title(entity: Entity, number: int) -> str:
    """Title of a page that states no fact."""
    title = _NOTES[number % len(_NOTES)].format(entity.name)
    return title[0].upper() + title[1:] + (f", part {number // len(_NOTES) + 1}" if number >= len(_NOTES) else "")


def note_blocks(entity: Entity, island: Graph, seed: int, number: int) -> tuple[Block, ...]:
    """Its body: the words that a search for the entity's facts has, and links that lead away."""
    rng = Rng(seed, "note", entity.path, number)
    blocks: list[Block] = [padding(rng)]
    for relation in relations_of(entity.kind):
        blocks += [Paragraph((rng.choice(_IDLE).format(_asked_of(relation, entity)),)), padding(rng)]
    others = island.entities()
    links = {other.path: Link(other.name, other.path) for other in (rng.choice(others) for _ in range(4))}
    return (*blocks, Heading("See also"), Links(tuple(links.values())))


def _asked_of(relation: Relation, entity: Entity) -> str:
    return relation.phrase.format(s=entity.name)


def padding(rng: Rng) -> Paragraph:
    """Two to four sentences about nothing."""
    sentences = (
        f"{rng.choice(_OPENINGS)} {rng.choice(_MIDDLES)}, {rng.choice(_ENDINGS)}" for _ in range(rng.between(2, 4))
    )
    return Paragraph((" ".join(sentences),))


def _relation_sentences(entity: Entity) -> list[tuple[str, str]]:
    return [(relation.name, relation.sentence) for relation in relations_of(entity.kind)]


def _related(entity: Entity, named: tuple[str, str]) -> Paragraph:
    name, sentence = named
    target = entity.links[name]
    before, after = sentence.format(s=entity.name, o="\0").split("\0")
    return Paragraph((before, Link(target.name, target.path), after))


def _references(entity: Entity) -> list[Block]:
    """Links to where the rest of what is known about it stands."""
    further = []
    if entity.kind is Kind.PLACE:
        region = str(entity.values["region"])
        further.append(Paragraph(("Figures: ", Link(f"Towns of {region}", region_path(region)), ".")))
    pdfs = [value for value in values_of(entity.kind) if value.where == "pdf"]
    if pdfs:
        text = "Annual report (PDF)" if entity.kind is Kind.COMPANY else "Full paper (PDF)"
        further.append(Paragraph(("Document: ", Link(text, document_of(entity, pdfs[0])), ".")))
    return [Heading("Further reading"), *further] if further else []


def report_lines(entity: Entity, seed: int) -> list[str]:
    """The lines of an entity's PDF: the values that stand nowhere else, among padding."""
    rng = Rng(seed, "report", entity.path)
    lines = [entity.name, ""]
    for value in values_of(entity.kind):
        if value.where == "pdf":
            lines += [
                *_wrapped(padding(rng)),
                "",
                value.sentence.format(s=entity.name, v=entity.values[value.name]),
                "",
            ]
    return [*lines, *_wrapped(padding(rng))]


def _wrapped(paragraph: Paragraph, width: int = 90) -> list[str]:
    """Greedy line breaking (textwrap's details may differ between Python versions)."""
    lines, line = [], ""
    for word in "".join(str(run) for run in paragraph.runs).split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]
