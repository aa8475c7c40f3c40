"""What can be wrong with the catalogue, as types. Every message names the remedy."""

from __future__ import annotations


class CatalogueError(Exception):
    """Base of all errors of `pinnace.tools.catalogue`."""


class UnknownServer(CatalogueError):
    """The catalogue has no server of this name."""


class InvalidEntry(CatalogueError):
    """An entry's file breaks the schema of `Entry`."""


class NotInstalled(CatalogueError):
    """The environment that the server's package lives in is missing."""
