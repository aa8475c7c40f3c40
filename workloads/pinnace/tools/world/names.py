"""Names that nobody bears: made of syllables, each used once."""

from __future__ import annotations

from collections.abc import Callable

from pinnace.tools.world.rng import Rng

_ONSETS = [
    "b",
    "br",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
    "sk",
    "st",
    "t",
    "tr",
    "v",
    "w",
    "z",
    "th",
    "sh",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ei", "ia", "oa"]
_CODAS = ["", "", "n", "l", "r", "s", "nd", "rn", "lm", "k", "m", "rt"]
_GIVEN_ENDS = ["a", "o", "en", "is", "ra", "lin", "mar", "el", "ine", "us"]
_FAMILY_ENDS = ["sen", "holt", "wick", "berg", "ley", "mond", "vane", "croft", "dahl", "stad", "mere", "garth"]
_PLACE_ENDS = ["haven", "ford", "stead", "mouth", "burgh", "dale", "field", "brook", "minster", "wold", "ness", "combe"]
_RIVER_ENDS = ["e", "er", "an", "une", "ay", "our"]
_COMPANY_ENDS = ["Works", "Instruments", "Mills", "Shipping", "Optics", "Foundry", "Systems", "Textiles", "Ceramics"]
_EVENT_KINDS = ["Regatta", "Congress", "Biennial", "Prize Gala", "Symposium", "Marathon", "Fair", "Olympiad", "Forum"]
_PRODUCT_KINDS = [
    "barometer",
    "loom",
    "sextant",
    "kiln",
    "telescope",
    "harvester",
    "turbine",
    "clock",
    "pump",
    "printing press",
    "ferry",
    "theodolite",
]
_METHOD_KINDS = ["transform", "estimator", "test", "index", "protocol", "lattice", "filter", "criterion"]
_TOPICS = [
    "tidal silt",
    "frost on slate roofs",
    "migrating terns",
    "salt glazes",
    "sleep in lighthouse keepers",
    "drift of buoys",
    "moss on north walls",
    "echoes in dry docks",
    "rust in iron bridges",
    "memory for sea charts",
    "yeast in cold cellars",
    "wear of mill stones",
]


class Names:
    """A source of unique names for one world."""

    def __init__(self, seed: int) -> None:
        self._rng = Rng(seed, "names")
        self._used: set[str] = set()

    def _syllable(self) -> str:
        return self._rng.choice(_ONSETS) + self._rng.choice(_VOWELS)

    def _stem(self) -> str:
        return self._syllable() + self._rng.choice(_CODAS)

    def _word(self, ends: list[str]) -> str:
        return (self._stem() + self._rng.choice(ends)).capitalize()

    def _unique(self, make: Callable[[], str]) -> str:
        while (name := make()).lower() in self._used:
            pass
        self._used.add(name.lower())
        return name

    def person(self) -> str:
        """Given and family name."""
        return self._unique(lambda: f"{self._word(_GIVEN_ENDS)} {self._word(_FAMILY_ENDS)}")

    def place(self) -> str:
        """A town."""
        return self._unique(lambda: self._word(_PLACE_ENDS))

    def region(self) -> str:
        """A region."""
        return self._unique(lambda: self._word(["ia", "mark", "land", "shire"]))

    def river(self) -> str:
        """A river."""

        def make() -> str:
            return f"{self._syllable()}{self._word(_RIVER_ENDS)}".capitalize()

        return self._unique(make)

    def company(self) -> str:
        """A company."""
        return self._unique(lambda: f"{self._word(_FAMILY_ENDS)} {self._rng.choice(_COMPANY_ENDS)}")

    def event(self, year: int) -> str:
        """An event; the year is part of its name."""
        return self._unique(lambda: f"{self._word(_PLACE_ENDS[4:])} {self._rng.choice(_EVENT_KINDS)} {year}")

    def prize(self) -> str:
        """A prize that is given once."""
        return self._unique(lambda: f"{self._word(_GIVEN_ENDS)} Medal")

    def product(self) -> str:
        """A product that only one company makes."""
        return self._unique(lambda: f"{self._word(_GIVEN_ENDS)} {self._rng.choice(_PRODUCT_KINDS)}")

    def method(self) -> str:
        """A method that only one paper brings."""
        return self._unique(lambda: f"{self._word(_FAMILY_ENDS)} {self._rng.choice(_METHOD_KINDS)}")

    def paper(self, method: str) -> str:
        """A title with the method in it, so that it is unique as the method is."""
        return f"The {method} and {self._rng.choice(_TOPICS)}"
