"""Which world: the knobs that server, command line and question files share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pinnace.tools.world.site import World, build


@dataclass(frozen=True)
class Settings:
    """Arguments of `build`, with its defaults."""

    seed: int = 0
    pages: int = 3000
    islands: int = 3
    noise: int = 0
    length: int = 1

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Settings:
        """From `PINNACE_WORLD_SEED`, `…_PAGES`, `…_ISLANDS`, `…_NOISE`, `…_LENGTH`.

        Raises:
            ValueError: one is no whole number.
        """
        names = {name: f"PINNACE_WORLD_{name.upper()}" for name in asdict(cls())}
        return cls(**{name: int(environment[key]) for name, key in names.items() if environment.get(key)})

    def build(self) -> World:
        """The world. Raises `ValueError` as `build` does."""
        return build(**asdict(self))
