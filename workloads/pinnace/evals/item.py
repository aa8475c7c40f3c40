"""One question of a benchmark."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True)
class Item:
    """A question with its answer.

    Attributes:
        id: unique in its benchmark and the same in every copy of the data.
        answer: the reference, in plain text. Never shown to the agent, its tools or the refiner.
        images: data URIs.
        files: attachments that the agent's tools get.
        page: an address that the tools must be able to open: else the question is about another world than theirs.
        groups: what scores are also broken down by (`level: 2`).
        canary: text that no web page should have; one that has it is contaminated.
    """

    id: str
    question: str
    answer: str
    images: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    page: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    answer_type: str = ""
    canary: str | None = None

    @property
    def slug(self) -> str:
        """The id as a name that every store keeps apart from all others."""
        if _SAFE.fullmatch(self.id):
            return self.id
        return "x" + hashlib.sha256(self.id.encode()).hexdigest()[:24]


def id_of(*parts: str) -> str:
    """An id for items that have none: from what identifies them, so that the order of rows does not matter."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
