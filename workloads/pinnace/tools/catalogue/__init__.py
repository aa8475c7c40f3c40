"""The catalogue of MCP servers: what each is, how it starts, what it needs, and the call that proves it works.

Entries are YAML files in `entries/`, one a server; docs/catalogue.md is generated from them.
"""

from pinnace.tools.catalogue.entry import Canary, Entry, Isolation, Needs, Runtime, Secret, State
from pinnace.tools.catalogue.errors import CatalogueError, InvalidEntry, NotInstalled, UnknownServer
from pinnace.tools.catalogue.loader import entries, entry
from pinnace.tools.catalogue.readiness import Granted, expected_outcome, refusal

__all__ = [
    "Canary",
    "CatalogueError",
    "Entry",
    "Granted",
    "InvalidEntry",
    "Isolation",
    "Needs",
    "NotInstalled",
    "Runtime",
    "Secret",
    "State",
    "UnknownServer",
    "entries",
    "entry",
    "expected_outcome",
    "refusal",
]
