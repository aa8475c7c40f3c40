"""How Scout asks, in English and Chinese: nested for a few hops, as a list of steps for many."""

from __future__ import annotations

from collections.abc import Sequence

from pinnace.tools.world.facts import DESCRIPTIONS, Relation, Value
from pinnace.tools.world.graph import Entity, Kind

NESTED = 3
"""The most relations that are put into one phrase."""

# Each relation in one or two words: what to look for on the page that one is at.
_STEPS = {
    "birthplace": ("birthplace", "出生地"),
    "employer": ("employer", "任职的公司"),
    "mentor": ("teacher", "老师"),
    "twin": ("twin town", "友好城市"),
    "mayor": ("mayor", "市长"),
    "founder": ("founder", "创始人"),
    "headquarters": ("headquarters' town", "总部所在的城镇"),
    "supplier": ("main supplier", "主要供应商"),
    "venue": ("host town", "举办城镇"),
    "winner": ("winner", "获胜者"),
    "organiser": ("organiser", "主办公司"),
    "author": ("author", "作者"),
    "event": ("event where it was presented", "发表该论文的活动"),
    "builds on": ("paper it builds on", "所依据的论文"),
}
_VALUES_ZH = {
    "river": "流经的河流名称",
    "product": "知名产品",
    "prize": "颁发的奖项名称",
    "visitors": "参观人数",
    "method": "提出的方法名称",
}
_DESCRIBED_ZH = {
    Kind.COMPANY: "以“{v}”闻名的公司",
    Kind.EVENT: "颁发“{v}”的活动",
    Kind.PAPER: "提出“{v}”的论文",
    Kind.PLACE: "{v}河畔的城镇",
}
_OLDEST = {
    Kind.PERSON: ("person", "was born first", "人物", "出生最早"),
    Kind.COMPANY: ("company", "was founded first", "公司", "成立最早"),
}


def start(entity: Entity, language: str, *, described: bool) -> str:
    """How the first entity is called: by its name, or by something that only it has and that must be searched for."""
    if described and entity.kind in DESCRIPTIONS:
        name, phrase = DESCRIPTIONS[entity.kind]
        return (phrase if language == "en" else _DESCRIBED_ZH[entity.kind]).format(v=entity.values[name])
    quoted = f"“{entity.name}”"
    return quoted if language == "zh" or entity.kind is Kind.PAPER else entity.name


def chain(begin: str, relations: Sequence[Relation], fact: Relation | Value, language: str) -> str:
    """The question for a fact of what the relations lead to."""
    if language == "zh":
        asked = _VALUES_ZH[fact.name] if isinstance(fact, Value) else _STEPS[fact.name][1]
        if len(relations) > NESTED:
            return f"{_list(begin, relations, language)}请给出最后到达者的{asked}。"
        return f"请给出{''.join([begin, *(f'的{_STEPS[each.name][1]}' for each in relations)])}的{asked}。"
    if len(relations) > NESTED:
        return f"{_list(begin, relations, language)} {_ask(fact.question, 'what the last step led to')}"
    phrase = begin
    for each in relations:
        phrase = _ask(each.phrase, phrase)
    return _ask(fact.question, phrase)


def memory(begin: str, relations: Sequence[Relation], kind: Kind, language: str) -> str:
    """The question for the oldest of all on the way."""
    thing, oldest, thing_zh, oldest_zh = _OLDEST[kind]
    if language == "zh":
        way = _list(begin, relations, language)
        return f"{way}在这条路径经过的所有{thing_zh}（包括起点和终点）中，{oldest_zh}的是谁？请给出全名。"
    return (
        f"{_list(begin, relations, language)} Of each {thing} on this way, the start and the end included, which one "
        f"{oldest}? Give the full name."
    )


def _list(begin: str, relations: Sequence[Relation], language: str) -> str:
    column = 1 if language == "zh" else 0
    steps = " → ".join(f"{number}. {_STEPS[each.name][column]}" for number, each in enumerate(relations, 1))
    if language == "zh":
        return f"从{begin}出发，依次查找，每一步都从上一步的结果继续：{steps}。"
    return f"Start at {begin} and go on step by step, each time from what the last step led to: {steps}."


def _ask(pattern: str, phrase: str) -> str:
    """The pattern about a name; without its own quotes where the phrase brings some or needs none."""
    bare = phrase.startswith(("the ", "“", "what "))
    return (pattern.replace("“", "").replace("”", "") if bare else pattern).format(s=phrase)
