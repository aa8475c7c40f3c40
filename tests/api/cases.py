"""Rows of the tables of invalid manifests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A patch of the smallest valid manifest (paths below spec, or `metadata.…`), and what the message has."""

    id: str
    patch: dict[str, Any]
    says: tuple[str, ...]

    @property
    def paths(self) -> dict[str, Any]:
        return {path if path.startswith("metadata.") else f"spec.{path}": value for path, value in self.patch.items()}
