"""How far a judge can be trusted: its verdicts beside those of people."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from .errors import DataInvalid
from .graders import Answered, Grader, Judge, Verdict
from .rows import read_rows, text_of


@dataclass(frozen=True)
class Agreement:
    """A judge on a labelled set. `kappa` is Cohen's, over what the judge decided; None if undefined."""

    total: int
    agreed: int
    false_right: int
    false_wrong: int
    unknown: int
    kappa: float | None

    @property
    def share(self) -> float | None:
        """Share of decided answers on which judge and people agree."""
        decided = self.total - self.unknown
        return self.agreed / decided if decided else None


def read_labelled(path: Path) -> list[tuple[Answered, Verdict]]:
    """Rows with question, reference (or answer), response, and label `right` or `wrong`. Raises `DataInvalid`."""
    labelled = []
    for number, row in enumerate(read_rows(path), 1):
        where = f"{path.name}, row {number}"
        label = text_of(row, "label", where).strip().lower()
        if label not in {Verdict.RIGHT, Verdict.WRONG}:
            raise DataInvalid(f"{where}: label {label!r} is neither `right` nor `wrong`")
        reference = text_of(row, "reference" if row.get("reference") else "answer", where)
        response = text_of(row, "response", where)
        labelled.append((Answered(text_of(row, "question", where), reference, response, response), Verdict(label)))
    if not labelled:
        raise DataInvalid(f"{path.name} has no rows")
    return labelled


async def calibrate(
    grader: Grader, judge: Judge | None, labelled: list[tuple[Answered, Verdict]], *, concurrency: int = 8
) -> Agreement:
    """Grades a labelled set and compares."""
    gate = asyncio.Semaphore(concurrency)

    async def one(answered: Answered) -> Verdict:
        async with gate:
            return (await grader.grade(answered, judge)).verdict

    verdicts = await asyncio.gather(*(one(answered) for answered, _ in labelled))
    return agreement([(verdict, label) for verdict, (_, label) in zip(verdicts, labelled, strict=True)])


def agreement(pairs: list[tuple[Verdict, Verdict]]) -> Agreement:
    """Pairs are (judge, people)."""
    decided = [pair for pair in pairs if pair[0] is not Verdict.UNKNOWN]
    agreed = sum(judge is label for judge, label in decided)
    false_right = sum(judge is Verdict.RIGHT and label is Verdict.WRONG for judge, label in decided)
    return Agreement(
        total=len(pairs),
        agreed=agreed,
        false_right=false_right,
        false_wrong=len(decided) - agreed - false_right,
        unknown=len(pairs) - len(decided),
        kappa=_kappa(decided),
    )


def _kappa(pairs: list[tuple[Verdict, Verdict]]) -> float | None:
    if not pairs:
        return None
    count = len(pairs)
    observed = sum(one is other for one, other in pairs) / count
    judged = sum(one is Verdict.RIGHT for one, _ in pairs) / count
    labelled = sum(other is Verdict.RIGHT for _, other in pairs) / count
    chance = judged * labelled + (1 - judged) * (1 - labelled)
    return None if chance == 1 else (observed - chance) / (1 - chance)
